package test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// parsers names, for everything that reads bytes from outside, the fuzz target
// that tries it: "folder.Function" → "folder.Target". scripts/fuzz runs them all.
var parsers = map[string]string{
	"cmd/yizhan/backup.ParseManifest":   "cmd/yizhan/backup.FuzzParseManifest",
	"cmd/yizhan/backup.readRow":         "cmd/yizhan/backup.FuzzReadRows",
	"exchange/link.Import":              "exchange/link.FuzzImport",
	"exchange/link.hear":                "exchange/link.FuzzPassage",
	"exchange/node.ParseRestoreNotice":  "exchange/node.FuzzParseRestoreNotice",
	"adapters/inspect.Inspect":          "adapters/inspect.FuzzOFD",
	"adapters/inspect.parseReply":       "adapters/inspect.FuzzReply",
	"adapters/inspect.pdf":              "adapters/inspect.FuzzPDF",
	"adapters/inspect.walkXML":          "adapters/inspect.FuzzXML",
	"exchange/node.ParsePosition":       "exchange/node.FuzzParsePosition",
	"exchange/node.ParseStatus":         "exchange/node.FuzzParseStatus",
	"adapters/ferry.ParseManifest":      "adapters/ferry.FuzzManifest",
	"adapters/fileshare/manifest.Open":  "adapters/fileshare/manifest.FuzzOpen",
	"adapters/fileshare/pull.parseFact": "adapters/fileshare/pull.FuzzFacts",
	"adapters/ferry.ParseProbe":         "adapters/ferry.FuzzProbe",
	"adapters/ferry.parseWrapping":      "adapters/ferry.FuzzWrapping",
	"adapters/rest.Handler":             "adapters/rest.FuzzRequests",
	"adapters/rest.UnmarshalJSON":       "adapters/rest.FuzzSubmitRequest",
	"adapters/rest.OpenKeyRing":         "adapters/rest.FuzzKeyRing",
	"adapters/rest.digestsOf":           "adapters/rest.FuzzDigests",
	"adapters/trust.readAnswers":        "adapters/trust.FuzzReadAnswers",
	"certs.LoadDirectory":               "certs.FuzzLoadDirectory",
	"certs.OpenEnvelopedKey":            "certs.FuzzOpenEnvelopedKey",
	"certs.ParseAgencyCode":             "certs.FuzzParseAgencyCode",
	"certs.ParseCRL":                    "certs.FuzzParseCRL",
	"certs.ParseCSR":                    "certs.FuzzParseCSR",
	"certs.ParseCertificates":           "certs.FuzzParseCertificates",
	"certs.ParseOCSPRequest":            "certs.FuzzParseOCSPRequest",
	"certs.ParseOCSPResponse":           "certs.FuzzParseOCSPResponse",
	"certs.ParseRequest":                "certs.FuzzParseRequest",
	"certs.ReadCertificate":             "certs.FuzzReadCertificate",
	"certs.SignedList":                  "certs.FuzzSignedList",
	"certs.SignedParts":                 "certs.FuzzSignedList",
	"certs.index":                       "certs.FuzzEntry",
	"certs.Take":                        "certs.FuzzTake",
	"certs.parseDelta":                  "certs.FuzzTake",
	"certs.readApproval":                "certs.FuzzReadApproval",
	"certs.readSuccession":              "certs.FuzzSuccession",
	"certs.verify":                      "certs.FuzzCertificate",
	"crypto/cms.Parse":                  "crypto/cms.FuzzParse",
	"crypto/cms.ParseCertificate":       "crypto/cms.FuzzParseCertificate",
	"crypto/cms.Relabel":                "crypto/cms.FuzzParse",
	"crypto/envelope.Open":              "crypto/envelope.FuzzOpen",
	"crypto/envelope.OpenDetail":        "crypto/envelope.FuzzOpenDetail",
	"crypto/envelope.ParseHeader":       "crypto/envelope.FuzzParseHeader",
	"crypto/envelope.VerifyDisclosure":  "crypto/envelope.FuzzVerifyDisclosure",
	"crypto/envelope.parseManifest":     "crypto/envelope.FuzzManifest",
	"crypto/keystore.Open":              "crypto/keystore.FuzzKeyFile",
	"crypto/keystore.OpenRow":           "crypto/keystore.FuzzOpenRow",
	"crypto/keystore.iterations":        "crypto/keystore.FuzzIterations",
	"crypto/merkle.ParseCheckpoint":     "crypto/merkle.FuzzParse",
	"crypto/merkle.ParseLeaf":           "crypto/merkle.FuzzParse",
	"crypto/merkle.VerifyConsistency":   "crypto/merkle.FuzzProofs",
	"crypto/merkle.VerifyInclusion":     "crypto/merkle.FuzzProofs",
	"crypto/sm.Decrypt":                 "crypto/sm.FuzzDecrypt",
	"crypto/sm.OpenChunk":               "crypto/sm.FuzzOpenChunk",
	"crypto/sm.OpenWithX":               "crypto/sm.FuzzParseCiphertext",
	"crypto/sm.ParseCiphertext":         "crypto/sm.FuzzParseCiphertext",
	"crypto/sm.ParseDigest":             "crypto/sm.FuzzParseDigest",
	"crypto/sm.ParsePublicKey":          "crypto/sm.FuzzParsePublicKey",
	"crypto/sm.UnmarshalText":           "crypto/sm.FuzzParseDigest",
	"crypto/sm.Verify":                  "crypto/sm.FuzzVerify",
	"crypto/timestamp.Parse":            "crypto/timestamp.FuzzResponse",
	"crypto/timestamp.ParseRequest":     "crypto/timestamp.FuzzRequest",
	"crypto/timestamp.ParseResponse":    "crypto/timestamp.FuzzResponse",
	"exchange.ParseGuardApproval":       "exchange.FuzzParseGuardApproval",
	"exchange/guard.Marked":             "exchange/guard.FuzzMarked",
	"exchange/guard.Parse":              "exchange/guard.FuzzParse",
	"exchange/guard.UnmarshalText":      "exchange/guard.FuzzParse",
	"exchange.ParseNumber":              "exchange.FuzzParseNumber",
	"exchange.ReadDate":                 "exchange.FuzzReadDate",
	"exchange.ReadLabel":                "exchange.FuzzReadLabel",
	"exchange.ReadUrgency":              "exchange.FuzzReadUrgency",
	"exchange.ParseDocument":            "exchange.FuzzParseDocument",
	"exchange.ParseReceipt":             "exchange.FuzzParseReceipt",
	"exchange.ParseRequest":             "exchange.FuzzParseRequest",
	"exchange.ParseRouting":             "exchange.FuzzParseRouting",
	"exchange/evidence.Parse":           "exchange/evidence.FuzzParse",
	"exchange/evidence.Verify":          "exchange/evidence.FuzzVerify",
	"exchange/link.ParseCode":           "exchange/link.FuzzParseCode",
	"exchange/link.Receive":             "exchange/link.FuzzReceive",
	"exchange/link.parseClear":          "exchange/link.FuzzClear",
	"exchange/link.parseInner":          "exchange/link.FuzzSection",
	"exchange/link.readFrame":           "exchange/link.FuzzFrame",
	"exchange/node.ParseConsignment":    "exchange/node.FuzzParseConsignment",
	"exchange/node.parsePartID":         "exchange/node.FuzzParsePartID",
	"exchange/node.parseReceiptItem":    "exchange/node.FuzzParseReceiptItem",
	"internal/config.Load":              "internal/config.FuzzParse",
	"internal/config.Parse":             "internal/config.FuzzParse",
	"internal/strictjson.ObjectMembers": "internal/strictjson.FuzzUnmarshal",
	"queue/blob.walk":                   "queue/blob.FuzzWalk",
	"internal/strictjson.Unmarshal":     "internal/strictjson.FuzzUnmarshal",
	"internal/strictjson.UnmarshalText": "internal/strictjson.FuzzUnmarshal",
}

// noParser are functions whose names look like parsing and that read nothing
// from outside, with the reason.
var noParser = map[string]string{
	"adapters/fileshare/pull.ParseURL":      "cuts a line of the operator's own profile",
	"adapters/ferry.Open":                   "opens a directory; link.Ferry.Import reads the files",
	"adapters/ferry.ReadManifest":           "finds a list, which ParseManifest reads",
	"adapters/ferry.OpenKept":               "opens a directory of files made by this program",
	"cmd/yizhan/backup.Open":                "finds a manifest, which ParseManifest reads",
	"queue/blob.OpenAbove":                  "opens a directory that is to be empty, like Open",
	"exchange/evidence.ReadCRL":             "tries certs.ParseCRL with each issuer",
	"certs.ReadAuthority":                   "reads a certificate file of a folder as ReadCertificate does",
	"certs.OpenAuthorityWith":               "as OpenAuthority, with keys that are elsewhere",
	"certs.ParseBranch":                     "compares a word with a closed set",
	"certs.OpenShelf":                       "reads directory files, a certificate and a number, whose parsers are listed",
	"certs.OpenAuthority":                   "opens a keystore and entries, whose parsers are listed",
	"crypto/keystore.OpenNative":            "opens key references made by this program, and files as Open does",
	"crypto/keystore.OpenWrapped":           "opens files that the HSM authenticates (GCM) before they are parsed",
	"exchange.ParseKind":                    "compares a word with a closed set",
	"exchange.ParseLabel":                   "compares a word with a closed set",
	"exchange.ParseUrgency":                 "compares a word with a closed set",
	"exchange.ReadKind":                     "compares a word with a closed set",
	"exchange/records.Load":                 "reads a blob by its digest",
	"internal/durable.ReadFile":             "gives bytes, bounded, and looks at none",
	"adapters/inspect.ReadAt":               "passes bytes on, looks at none",
	"crypto/envelope.ReadAt":                "opens chunks of what Open has verified",
	"internal/durable.Open":                 "opens a file, looks at no byte",
	"internal/durable.OpenRegular":          "opens a file, looks at no byte",
	"internal/durable.ReadDir":              "lists names",
	"queue/badgerstore.Open":                "opens the database",
	"queue/blob.Open":                       "scans its own folder",
	"internal/durable/crashfs.Open":         "a file system for tests",
	"internal/durable/crashfs.ReadDir":      "a file system for tests",
	"queue/blob.OpenSized":                  "as Open; the walker is tried by FuzzWalk",
	"internal/durable.OpenForWrite":         "opens a file, looks at no byte",
	"internal/durable/crashfs.OpenForWrite": "a file system for tests",
	"internal/durable/crashfs.ReadAt":       "a file system for tests",
}

// looksLikeParsing are exported functions that a new parser would be named like.
var looksLikeParsing = regexp.MustCompile(`^(Parse|Load|Open|Decode|Unmarshal|Read[A-Z])`)

// sources walks over the Go files of the packages, tests or not.
func sources(t *testing.T, tests bool, each func(folder string, f *ast.File)) {
	t.Helper()
	set := token.NewFileSet()
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == "testdata" || strings.HasPrefix(d.Name(), ".") && d.Name() != "..") {
			return filepath.SkipDir
		}
		if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") != tests {
			return nil
		}
		f, err := parser.ParseFile(set, path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		folder, err := filepath.Rel("..", filepath.Dir(path))
		if err != nil {
			return err
		}
		each(filepath.ToSlash(folder), f)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// functions lists the functions and methods of the tree as folder.Name.
func functions(t *testing.T, tests bool) map[string]*ast.FuncDecl {
	t.Helper()
	all := map[string]*ast.FuncDecl{}
	sources(t, tests, func(folder string, f *ast.File) {
		for _, d := range f.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok {
				all[folder+"."+fn.Name.Name] = fn
			}
		}
	})
	return all
}

// takesBytes says whether a function reads bytes, text or a stream.
func takesBytes(fn *ast.FuncDecl) bool {
	for _, p := range fn.Type.Params.List {
		switch t := p.Type.(type) {
		case *ast.ArrayType:
			if id, ok := t.Elt.(*ast.Ident); ok && id.Name == "byte" {
				return true
			}
		case *ast.Ident:
			if t.Name == "string" {
				return true
			}
		case *ast.SelectorExpr:
			if t.Sel.Name == "Reader" {
				return true
			}
		}
	}
	return false
}

// TestEveryParserHasAFuzzTarget: a new parser that nobody fuzzes fails here.
func TestEveryParserHasAFuzzTarget(t *testing.T) {
	code, tests := functions(t, false), functions(t, true)
	for name, fn := range code {
		if strings.HasPrefix(name, "cmd/") || strings.HasPrefix(name, "test/") || strings.HasPrefix(name, "crypto/keystore/keystoretest") {
			continue
		}
		if fn.Name.IsExported() && looksLikeParsing.MatchString(fn.Name.Name) && takesBytes(fn) && parsers[name] == "" && noParser[name] == "" {
			t.Errorf("%s reads bytes from outside: give it a fuzz target and a line in parsers, or say in noParser why it needs none", name)
		}
	}
	for name, target := range parsers {
		if code[name] == nil {
			t.Errorf("%s is in the list of parsers and not in the tree", name)
		}
		if tests[target] == nil {
			t.Errorf("%s, the fuzz target of %s, does not exist", target, name)
		}
	}
	for name := range noParser {
		if code[name] == nil {
			t.Errorf("%s is in noParser and not in the tree", name)
		}
	}
}

// TestEveryFuzzTargetHasACorpus: what fuzzing found interesting is committed, so
// that every plain test run tries it, and stays small.
func TestEveryFuzzTargetHasACorpus(t *testing.T) {
	const most = 64 << 10 // bytes of one target
	listed := slices.Collect(func(yield func(string) bool) {
		for _, target := range parsers {
			if !yield(target) {
				return
			}
		}
	})
	n := 0
	for name, fn := range functions(t, true) {
		if !strings.HasPrefix(fn.Name.Name, "Fuzz") {
			continue
		}
		n++
		if !slices.Contains(listed, name) {
			t.Errorf("%s tries no parser of the list", name)
		}
		folder, target, _ := strings.Cut(name, ".")
		entries, err := os.ReadDir(filepath.Join("..", filepath.FromSlash(folder), "testdata", "fuzz", target))
		if err != nil || len(entries) == 0 {
			t.Errorf("%s has no committed corpus: scripts/fuzz --keep finds one", name)
		}
		size := int64(0)
		for _, e := range entries {
			if info, err := e.Info(); err == nil {
				size += info.Size()
			}
		}
		if size > most {
			t.Errorf("the corpus of %s has %d bytes, at most %d are wanted", name, size, most)
		}
	}
	t.Logf("%d fuzz targets", n)
}
