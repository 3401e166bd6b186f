package exchange

// Verdict is what a look into a file found. Kind is what the bytes are,
// whatever the name says. With an empty Reason the file may pass; else Reason is
// one of the codes below, and Detail says in words of ours what is wrong: it
// names places and numbers, never text of the document.
type Verdict struct {
	Kind   string
	Reason string
	Detail string
}

// The reasons of a REJECTED that an inspection point can find.
const (
	CodeContentType       = "content_type"
	CodeContentDamaged    = "content_damaged"
	CodeContentDigest     = "content_digest"
	CodeContentActive     = "content_active"
	CodeContentHidden     = "content_hidden"
	CodeContentArchive    = "content_archive"
	CodeContentMalware    = "content_malware"
	CodeContentTooLarge   = "content_too_large"
	CodeInspectionMissing = "inspection_missing"
)

// ContentCodes are the reasons that a Verdict may have.
func ContentCodes() []string {
	return []string{
		CodeContentType, CodeContentDamaged, CodeContentDigest, CodeContentActive,
		CodeContentHidden, CodeContentArchive, CodeContentMalware, CodeContentTooLarge,
	}
}
