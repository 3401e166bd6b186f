//go:build !race

package envelope

// mutations is how many changed objects of each kind are tried.
const mutations = 10_000
