//go:build !race

package evidence

// mutations is how many changed objects of each kind are tried.
const mutations = 10_000
