package certs

// The codes of what comes from other authorities and goes to them: requests
// for certificates, revocation lists, answers of OCSP, enveloped keys.
const (
	codeCRL           = "crl_content"
	codeCRLSignature  = "crl_signature"
	codeCRLRollback   = "crl_rollback"
	codeOCSP          = "ocsp_content"
	codeOCSPSignature = "ocsp_signature"
	codeOCSPTime      = "ocsp_time"
	codeKey           = "key_content"
)

// Their classes, for errors.Is.
var (
	ErrCRL           = &Error{Code: codeCRL}
	ErrCRLSignature  = &Error{Code: codeCRLSignature}
	ErrCRLRollback   = &Error{Code: codeCRLRollback}
	ErrOCSP          = &Error{Code: codeOCSP}
	ErrOCSPSignature = &Error{Code: codeOCSPSignature}
	ErrOCSPTime      = &Error{Code: codeOCSPTime}
	ErrKey           = &Error{Code: codeKey}
)
