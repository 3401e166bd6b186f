// Package test holds what is true of the project as a whole: which package may
// import which, and which versions of other people's code are used.
package test

const module = "github.com/yizhan-gateway/yizhan"

// room is one package of the house.
type room struct {
	floor int
	path  string // below the module path
	// support marks code that exists for tests: only test files, other
	// support packages and test/... may import it.
	support bool
}

// house is the floor table, top to bottom. A package may import any package on
// a lower floor; on its own floor only those listed below it. Every package of
// the module has a line here. Adding a package means finding its place first.
var house = []room{
	{floor: 7, path: "test"},
	{floor: 7, path: "test/sim"},
	{floor: 7, path: "test/model"},
	{floor: 7, path: "test/e2e"},
	{floor: 7, path: "test/mutants"},
	{floor: 7, path: "test/campaign"},
	{floor: 7, path: "test/tsa"},

	{floor: 6, path: "cmd/yizhan"},
	{floor: 6, path: "cmd/yzverify"},
	{floor: 6, path: "cmd/yizhan/bench"},
	{floor: 6, path: "cmd/yizhan/backup"},

	{floor: 5, path: "client"},
	{floor: 5, path: "adapters/rest"},
	{floor: 5, path: "adapters/console"},
	{floor: 5, path: "adapters/control"},
	{floor: 5, path: "adapters/peer"},
	{floor: 5, path: "adapters/ferry"},
	{floor: 5, path: "adapters/ferry/badgate"},
	{floor: 5, path: "adapters/fileshare"},
	{floor: 5, path: "adapters/fileshare/manifest"},
	{floor: 5, path: "adapters/fileshare/pull"},
	{floor: 5, path: "adapters/trust"},
	{floor: 5, path: "adapters/inspect"},
	{floor: 5, path: "adapters/export"},
	{floor: 5, path: "adapters/notify"},

	{floor: 4, path: "exchange/link"},
	{floor: 4, path: "exchange/node"},
	{floor: 4, path: "exchange/evidence"},
	{floor: 4, path: "exchange/records"},
	{floor: 4, path: "exchange/guard"},
	{floor: 4, path: "exchange"},

	{floor: 3, path: "queue/badgerstore"},
	{floor: 3, path: "queue/blob"},
	{floor: 3, path: "queue/staging"},
	{floor: 3, path: "queue/storetest", support: true},
	{floor: 3, path: "queue/blob/blobtest", support: true},

	{floor: 2, path: "queue"},
	{floor: 2, path: "certs"},
	{floor: 2, path: "crypto/envelope"},

	{floor: 1, path: "crypto/timestamp/tsatest", support: true},
	{floor: 1, path: "crypto/timestamp"},
	{floor: 1, path: "crypto/cms"},
	{floor: 1, path: "crypto/merkle"},
	{floor: 1, path: "crypto/keystore/pkcs11"},
	{floor: 1, path: "crypto/keystore/keystoretest", support: true},
	{floor: 1, path: "crypto/keystore"},

	{floor: 0, path: "internal/durable/crashfs", support: true},
	{floor: 0, path: "crypto/sm"},
	{floor: 0, path: "internal/durable"},
	{floor: 0, path: "internal/config"},
	{floor: 0, path: "internal/strictjson"},
}

// clientAlone is what agency systems are promised.
const clientAlone = "client needs the standard library alone"

// deny names arrows that the floors would permit and the house does not, in
// code that ships (tests may use a real engine). A trailing "/..." covers the
// package itself and everything below it, as in go list.
var deny = []struct{ from, to, why string }{
	{"adapters/...", "adapters/...", "adapters never import one another; what two of them need belongs on floor 4 or lower"},
	{"client", "adapters/...", clientAlone},
	{"client", "exchange/...", clientAlone},
	{"client", "queue/...", clientAlone},
	{"client", "certs", clientAlone},
	{"client", "crypto/...", clientAlone},
	{"client", "internal/...", clientAlone},
	{"queue", "certs", "queue knows nothing of documents or of who signs them"},
	{"queue", "crypto/envelope", "queue knows nothing of documents"},
	{"exchange", "queue", "the vocabulary needs no store; typed rows are exchange/records"},
	{"exchange/guard", "queue", "guard is pure decisions"},
	{"exchange/evidence", "queue", "evidence is verified without a store"},
	{"exchange/evidence", "exchange/records", "evidence is verified without a store"},
	{"exchange/...", "queue/badgerstore", "use cases know queue.Store; cmd chooses the engine"},
	{"exchange/...", "queue/blob", "use cases know queue.Blobs; cmd chooses the engine"},
}

// doors says which packages of the house may import which outside module. A
// test file may import any module named here.
var doors = []struct {
	module string
	rooms  []string
}{
	{"github.com/emmansun/gmsm", []string{"crypto/...", "certs", "cmd/yizhan/bench"}},
	{"golang.org/x/crypto", []string{"crypto/...", "certs", "adapters/fileshare/pull"}},
	{"golang.org/x/sys", []string{"internal/durable"}},
	{"github.com/pkg/sftp", []string{"adapters/fileshare/pull"}},
	{"golang.org/x/text", []string{"adapters/fileshare/..."}},
	{"github.com/transparency-dev/merkle", []string{"crypto/merkle"}},
	{"github.com/ThalesIgnite/crypto11", []string{"crypto/keystore/pkcs11"}},
	{"github.com/miekg/pkcs11", []string{"crypto/keystore/pkcs11", "cmd/yizhan/bench"}},
	{"github.com/pelletier/go-toml/v2", []string{"internal/config"}},
	{"github.com/dgraph-io/badger/v4", []string{"queue/badgerstore"}},
	{"github.com/oklog/ulid/v2", []string{"crypto/envelope", "exchange/...", "adapters/...", "cmd/..."}},
	{"github.com/gorilla/mux", []string{"adapters/..."}},
	{"github.com/tus/tusd/v2", []string{"adapters/rest"}},
	{"golang.org/x/exp", []string{"adapters/rest"}},
	{"github.com/danielgtaylor/huma/v2", []string{"adapters/..."}},
	{"github.com/spf13/cobra", []string{"cmd/..."}},
	{"github.com/prometheus/client_golang", []string{"cmd/yizhan"}},
	{"github.com/rogpeppe/go-internal", nil},
	{"github.com/getkin/kin-openapi", nil},
	{"pgregory.net/rapid", nil},
}

// auditorMayNotLink lists what cmd/yzverify must not contain, at any depth: the
// auditor's tool reads files; it neither serves, dials nor stores. Package net
// itself is linked, by the X.509 parser (addresses in certificates) and the
// flag parser, so the rule names what is built upon it.
var auditorMayNotLink = []string{
	"net/http/...", "net/rpc/...", "net/smtp", "crypto/tls", "database/sql/...", "plugin",
	"github.com/dgraph-io/...", "github.com/ThalesIgnite/...", "github.com/miekg/...",
	"github.com/gorilla/...", "github.com/danielgtaylor/...",
	module + "/queue/...", module + "/adapters/...",
	module + "/exchange/records", module + "/exchange/node", module + "/exchange/link",
}
