//go:build race

package evidence

// mutations is smaller under the race detector, which makes every step ten
// times slower; scripts/test runs all 10,000 in a step of their own.
const mutations = 1_000
