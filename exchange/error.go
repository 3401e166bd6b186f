package exchange

import (
	"errors"
	"fmt"
	"syscall"

	"github.com/yizhan-gateway/yizhan/crypto/keystore"
)

// Error is the one error a use case gives on purpose: a stable code that
// programs act on, what exactly was wrong, and whether trying again later can
// help. Adapters turn the code into a status and into words with [Explain].
//
// Detail is shown to the caller and may be logged, so it names fields, codes
// and identifiers and never holds a title, a file name or document text.
type Error struct {
	Code      string
	Temporary bool
	Detail    string
	Err       error
}

func (e *Error) Error() string {
	msg := e.Code
	if e.Detail != "" {
		msg += ": " + e.Detail
	}
	if e.Err != nil {
		msg += ": " + e.Err.Error()
	}
	return msg
}

func (e *Error) Unwrap() error { return e.Err }

// Fail makes an Error from a code and a formatted detail.
func Fail(code, detail string, args ...any) *Error {
	if len(args) > 0 {
		detail = fmt.Sprintf(detail, args...)
	}
	return &Error{Code: code, Detail: detail, Temporary: code == CodeTemporary || code == CodeNoSpace || code == CodeQuota}
}

// Known gives the Error that err is to be shown as: the first in its chain, or
// nil. An HSM that does not answer is CodeTemporary, whatever was made of it
// on the way: nothing is refused, returned or given up because of it. So is a
// disk that is full or a quota that is used up, as CodeNoSpace. A PIN or
// passphrase that is refused when a keystore is opened is not temporary: to
// offer it again would lock the token.
func Known(err error) *Error {
	if errors.Is(err, keystore.ErrUnavailable) {
		return &Error{Code: CodeTemporary, Temporary: true, Detail: "the HSM that holds the keys does not answer", Err: err}
	}
	var e *Error
	switch {
	case errors.As(err, &e):
		return e
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return &Error{Code: CodeNoSpace, Temporary: true, Err: err}
	case errors.Is(err, keystore.ErrPIN):
		return &Error{Code: CodeKeystorePIN, Err: err}
	case errors.Is(err, keystore.ErrPassphrase):
		return &Error{Code: CodeKeystorePassphrase, Err: err}
	case errors.Is(err, keystore.ErrExists):
		return &Error{Code: CodeSetupConflict, Err: err}
	}
	return nil
}

// CodeOf gives the code of Known, or CodeInternal.
func CodeOf(err error) string {
	if e := Known(err); e != nil {
		return e.Code
	}
	return CodeInternal
}

// IsTemporary says whether err promises that the same call may succeed later.
func IsTemporary(err error) bool {
	e := Known(err)
	return e != nil && e.Temporary
}

// The codes. They are part of the public interface: a code is never renamed.
const (
	CodeUnknownRecipient    = "unknown_recipient"
	CodeAmbiguousRecipient  = "ambiguous_recipient"
	CodeAgencyNotActive     = "agency_not_active"
	CodeAgencyCode          = "agency_code"
	CodeMissingBody         = "missing_body"
	CodeEmptyFile           = "empty_file"
	CodeStateSecret         = "state_secret"
	CodeLabelCeiling        = "label_ceiling"
	CodeInvalidDocument     = "invalid_document"
	CodeNoRoute             = "no_route"
	CodeTooLarge            = "too_large"
	CodeBadMultipart        = "bad_multipart"
	CodeBadRequest          = "bad_request"
	CodeUnauthenticated     = "unauthenticated"
	CodeForbidden           = "forbidden"
	CodeNotFound            = "not_found"
	CodeConflict            = "conflict"
	CodeRecalled            = "recalled"
	CodeIdempotencyInUse    = "idempotency_in_use"
	CodeIdempotencyMismatch = "idempotency_mismatch"
	CodeIdempotencyMissing  = "idempotency_missing"
	CodeCertificateExpired  = "certificate_expired"
	CodeCertificateRevoked  = "certificate_revoked"
	CodeCertificateUsage    = "certificate_usage"
	CodeApproval            = "directory_approval"
	CodeDirectoryContent    = "directory_content"
	CodeDirectoryFork       = "directory_fork"
	CodeDirectoryList       = "directory_list"
	CodeDirectoryRollback   = "directory_rollback"
	CodeDirectorySignature  = "directory_signature"
	CodeFateUnknown         = "fate_unknown"
	CodeFingerprint         = "fingerprint_mismatch"
	CodeRequestContent      = "request_content"
	CodeRequestUnproven     = "request_unproven"
	CodeSetupConflict       = "setup_conflict"
	CodeSignatureInvalid    = "signature_invalid"
	CodeUnreadable          = "unreadable"
	CodeKeystorePIN         = "keystore_pin"
	CodeKeystorePassphrase  = "keystore_passphrase"
	CodeLedgerRolledBack    = "ledger_rolled_back"
	CodeFileSystem          = "file_system"
	CodeQuota               = "quota"
	CodeTooSlow             = "too_slow"
	CodeNoSpace             = "no_space"
	CodeMediumFull          = "medium_full"
	CodeUploadUnfinished    = "upload_unfinished"
	CodeWebhookAddress      = "webhook_address"
	CodeBackupDamaged       = "backup_damaged"
	CodeStoreDamaged        = "store_damaged"
	CodeOneWay              = "one_way"
	CodeFerryCode           = "ferry_code"
	CodeFerryCodePause      = "ferry_code_pause"
	CodeFerryOperator       = "ferry_operator"
	CodeRootMissing         = "blobs_missing"
	CodeWrongUser           = "wrong_user"
	CodeClassificationMark  = "classification_mark"
	CodeGuardKind           = "guard_kind"
	CodeGuardSize           = "guard_size"
	CodeGuardPair           = "guard_pair"
	CodeGuardRefused        = "guard_refused"
	CodeGuardApproval       = "guard_approval"
	CodeUnknownCritical     = "unknown_critical"
	CodeNotSignedFor        = "not_signed_for"
	CodePrecondition        = "precondition_failed"
	CodeDigestMismatch      = "digest_mismatch"
	CodeRateLimited         = "rate_limited"
	CodeTestMode            = "test_mode"
	CodeTemporary           = "temporary"
	CodeInternal            = "internal"
)

// Text is what a person reads about a code: the cause and the next step.
type Text struct{ Title, Fix string }

// Explain gives the text of a code; lang is "zh" or "en" (anything else).
// A code without a text of its own is explained as an internal fault.
func Explain(code, lang string) Text {
	pair, known := texts[code]
	if !known {
		pair = texts[CodeInternal]
	}
	if lang == "zh" {
		return pair.zh
	}
	return pair.en
}

// Reason is what a person reads of the reason in a receipt; empty when the code has no
// text of its own.
func Reason(code, lang string) string {
	if _, known := texts[code]; !known {
		return ""
	}
	return Explain(code, lang).Title
}

type bilingual struct{ en, zh Text }

var texts = map[string]bilingual{
	CodeUnknownRecipient: {
		Text{"A recipient is not in the directory", "Check the code with a directory search, or ask the domain authority to admit the agency."},
		Text{"收文单位不在名录中", "请先查询名录核对单位代码，或联系名录机构登记该单位。"}},
	CodeAmbiguousRecipient: {
		Text{"A recipient's name is that of several agencies", "Name the one that is meant by its code; the candidates are listed."},
		Text{"收文单位名称对应多个单位", "请从所列单位中选定，并填写其单位代码。"}},
	CodeAgencyNotActive: {
		Text{"An agency does not exist at this time", "Use the successor that is named, or ask the domain authority to correct the agency's dates."},
		Text{"单位尚未成立或已撤销", "请改用所列的承继单位，或联系名录机构更正该单位的有效期。"}},
	CodeAgencyCode: {
		Text{"An agency code is not well formed", "Enter the 18-character unified social credit code; its last character is a check digit."},
		Text{"单位代码格式不正确", "请填写 18 位统一社会信用代码，末位为校验码。"}},
	CodeMissingBody: {
		Text{"The document has no body file", "Send exactly one part named body, after the part named document."},
		Text{"公文缺少正文文件", "请提交且仅提交一个名为 body 的正文，位于 document 之后。"}},
	CodeEmptyFile: {
		Text{"A file is empty", "Check the export of the file; a file of 0 bytes is never sent."},
		Text{"文件为空", "请检查文件是否导出完整；不发送 0 字节文件。"}},
	CodeStateSecret: {
		Text{"State secrets are not carried", "Documents labelled 秘密, 机密 or 绝密 must use the classified network (Cryptography Law, arts. 7, 8)."},
		Text{"本系统不传输国家秘密", "秘密、机密、绝密文件须经涉密网络传输（《密码法》第七、八条）。"}},
	CodeLabelCeiling: {
		Text{"The label is above what the way allows", "Choose recipients reachable over links of that label, or ask the domain authority about the link's ceiling."},
		Text{"密级超出链路上限", "请选择可由相应等级链路到达的单位，或向名录机构核对链路密级上限。"}},
	CodeInvalidDocument: {
		Text{"The document's metadata is not valid", "Correct the named member and submit again."},
		Text{"公文要素不合规", "请按提示更正该要素后重新提交。"}},
	CodeNoRoute: {
		Text{"No way leads to the recipient", "Ask the domain authority to add a link or a route to the recipient's node."},
		Text{"没有到达收文单位的链路", "请联系名录机构为该单位所在节点配置链路或路由。"}},
	CodeTooLarge: {
		Text{"The request is larger than allowed", "Split the attachments over several documents or ask the operator to raise the limit."},
		Text{"请求超过大小上限", "请将附件拆分到多份公文，或联系运维人员调整上限。"}},
	CodeBadMultipart: {
		Text{"The multipart body is broken", "Send multipart/form-data with the part document first and complete boundaries."},
		Text{"multipart 请求体不完整", "请使用 multipart/form-data，首个部分为 document，边界须完整。"}},
	CodeBadRequest: {
		Text{"The request is not understood", "Correct the named field; the API description lists what is accepted."},
		Text{"无法理解该请求", "请按提示更正；接口说明列出了可接受的内容。"}},
	CodeUnauthenticated: {
		Text{"The API key is missing, wrong or expired", "Send Authorization: Bearer <key>; the operator issues keys with yizhan key create."},
		Text{"接口密钥缺失、错误或已过期", "请以 Authorization: Bearer 方式提交密钥；密钥由运维人员用 yizhan key create 签发。"}},
	CodeForbidden: {
		Text{"The API key may not do this", "Use a key with the needed scope."},
		Text{"该接口密钥无此权限", "请使用具有相应权限范围的密钥。"}},
	CodeNotFound: {
		Text{"There is no such object", "Check the identifier; an agency sees only its own documents."},
		Text{"没有找到该对象", "请核对标识；各单位只能查看本单位的公文。"}},
	CodeConflict: {
		Text{"The document is already in another final stage", "Look at the trace: a document signed for cannot be returned, and the reverse."},
		Text{"该公文已处于其他终结状态", "请查看流转轨迹：已签收的公文不能退文，已退文的不能签收。"}},
	CodeRecalled: {
		Text{"The sender has recalled the document", "Do not use copies of it; the trace shows when it was recalled and by whom."},
		Text{"该公文已被发文单位撤回", "请勿使用其副本；流转轨迹列明撤回的时间与单位。"}},
	CodeIdempotencyInUse: {
		Text{"A request with this Idempotency-Key is still running", "Wait for it and repeat the same request."},
		Text{"使用同一幂等键的请求正在处理", "请等待其完成后原样重试。"}},
	CodeIdempotencyMismatch: {
		Text{"The Idempotency-Key was used for another request", "Use a new key for a new document."},
		Text{"该幂等键已用于其他内容的请求", "新公文请使用新的幂等键。"}},
	CodeIdempotencyMissing: {
		Text{"The header Idempotency-Key is missing", "Send a key of 1 to 255 printable ASCII characters, unique for each document, and repeat it on a retry."},
		Text{"缺少 Idempotency-Key 请求头", "请为每份公文提供唯一的幂等键（1–255 个可打印 ASCII 字符），重试时保持不变。"}},
	CodeCertificateExpired: {
		Text{"A certificate is not valid at this time", "Renew the certificate with the domain authority and publish the directory."},
		Text{"证书不在有效期内", "请向名录机构更新证书并发布新名录。"}},
	CodeCertificateRevoked: {
		Text{"A certificate is revoked", "Do not act on what was signed after the revocation; its holder makes new keys and renews its certificates with the domain authority."},
		Text{"证书已被吊销", "吊销生效后的签名不予采信；持有单位应生成新密钥并向名录机构更新证书。"}},
	CodeCertificateUsage: {
		Text{"A certificate may not be used for this", "Use the signing certificate for signing and the encryption certificate for encryption."},
		Text{"证书用途不符", "签名须用签名证书，加密须用加密证书。"}},
	CodeApproval: {
		Text{"The publication is not approved", "Administrators approve it with yizhan directory sign; it is published as it was approved."},
		Text{"名录发布尚未获批", "请管理员用 yizhan directory sign 批准；批准的内容将原样发布。"}},
	CodeDirectoryContent: {
		Text{"The directory is not valid", "Do not use the file; get the newest from the authority, or have the named entry corrected and published."},
		Text{"名录内容不合规", "请勿使用该文件；请向名录机构索取最新名录，或请其更正所列条目后重新发布。"}},
	CodeDirectoryFork: {
		Text{"The authority signed two histories of the directory", "Nothing was changed. Ask the authority which one counts before anything else is installed."},
		Text{"名录出现两个互相矛盾的版本", "未作任何更改。请先向名录机构核实以哪一份为准，再行安装。"}},
	CodeDirectoryList: {
		Text{"This is not the list that was looked at", "Nothing was signed. Run yizhan directory diff again, look at what it shows, and give the SM3 that it prints with --list."},
		Text{"待批准的清单与所查看的不一致", "未作任何签名。请重新运行 yizhan directory diff，核对其内容，并用 --list 提供其打印的 SM3。"}},
	CodeDirectoryRollback: {
		Text{"The directory is older than the one in force", "Get the newest version from the authority."},
		Text{"名录版本低于现行版本", "请向名录机构索取最新名录。"}},
	CodeDirectorySignature: {
		Text{"The directory is not signed by the trusted authority", "Do not use the file. If the authority has a new key, it hands out a directory with its succession; ask it."},
		Text{"名录并非由所信任的名录机构签发", "请勿使用该文件。如名录机构更换了密钥，其名录会附带继任证明；请向其核实。"}},
	CodeRequestContent: {
		Text{"The authority cannot act on this", "Correct what is named, or have the node make a new request, and repeat."},
		Text{"名录机构无法据此办理", "请按所列原因更正，或请该节点重新生成请求，再行办理。"}},
	CodeRequestUnproven: {
		Text{"Nothing proves that the request is the holder's", "Nothing was changed. Have it made with yizhan cert renew where the present keys are; if they are lost or revoked, call the holder at a number that you know, compare the fingerprints, and admit this one request with --replace."},
		Text{"无法证明该请求出自在册单位", "未作任何更改。请在现有密钥所在的节点用 yizhan cert renew 重新生成请求；如密钥已遗失或吊销，请拨打已知电话核对指纹，再用 --replace 单独登记该请求。"}},
	CodeFateUnknown: {
		Text{"The neighbour may have the delivery", "Nothing was signed: two ends of one delivery would contradict each other. Ask the neighbour's operator, or put it back with yizhan queue retry: a neighbour that has it says so, and it is handed over."},
		Text{"相邻节点可能已收到该件", "未作任何签署：同一投递不能有两个互相矛盾的结局。请询问对端运维人员，或用 yizhan queue retry 重新投递：对端如已收到会予以确认，随即移交。"}},
	CodeOneWay: {
		Text{"The link has one way only", "Look at the link with yizhan ferry status: export, --again and confirm are for the side that sends, import and code for the one that receives."},
		Text{"该链路为单向链路", "请用 yizhan ferry status 查看链路方向：导出、补发（--again）与确认（confirm）在发送侧进行，导入与取码（code）在接收侧进行。"}},
	CodeFerryCode: {
		Text{"The acknowledgement code does not hold", "Nothing was confirmed. Have the other side run yizhan ferry code again and read it group by group."},
		Text{"到达确认码不成立", "未作任何确认。请对方重新运行 yizhan ferry code 并逐组读出。"}},
	CodeFerryCodePause: {
		Text{"Too many wrong codes", "Wait until the time that is named. If you do not know who entered them, tell whoever is responsible for security."},
		Text{"错误的确认码过多", "请等到所列时间之后再试；如不清楚是何人输入，请告知安全负责人。"}},
	CodeFerryOperator: {
		Text{"Nobody who may confirm is named", "CONFIRMED is signed by an administrator of the directory with a key of their own. The authority registers one with yizhan directory administrator and publishes; then repeat with --administrator and --keys."},
		Text{"缺少有权确认的操作人", "“到达（人工确认）”须由名录中的管理员以本人密钥签署。请名录机构用 yizhan directory administrator 登记并发布名录，再以 --administrator 与 --keys 重试。"}},
	CodeFingerprint: {
		Text{"The fingerprint is another one", "Have it read out again. If it stays different, the directory file is not from the authority: do not use it, and tell the authority."},
		Text{"指纹不一致", "请对方重读一次；如仍不一致，该名录文件并非出自名录机构：请勿使用，并告知名录机构。"}},
	CodeSetupConflict: {
		Text{"The directory is in use, or holds another setup", "Nothing was changed. If another yizhan command or node works with it, let it end or stop it, and repeat; else name a new directory. Remove an old one only when nothing needs its keys."},
		Text{"目录正被占用，或已有其他设置", "未作任何更改。如有其他 yizhan 命令或节点正在使用该目录，请等其结束或停止后重试；否则请改用新目录。确认其中密钥不再需要后，方可删除旧目录。"}},
	CodeSignatureInvalid: {
		Text{"A signature does not verify", "Do not act on the object; ask its issuer for a fresh copy."},
		Text{"签名验证未通过", "请勿采信该对象，并向出具方重新索取。"}},
	CodeUnreadable: {
		Text{"The document cannot be opened", "Ask the sender to send it again; the operator finds the cause in the quarantine."},
		Text{"公文无法打开", "请联系发文单位重发；原因见隔离区记录。"}},
	CodeKeystorePIN: {
		Text{"The HSM's token refuses the PIN", "Do not repeat it: tokens lock after a few wrong PINs. Correct the passphrase file or YIZHAN_PASSPHRASE; unlock a locked token by the vendor's means."},
		Text{"密码机令牌拒绝该 PIN", "请勿重试：连续输错会锁定令牌。请更正口令文件或 YIZHAN_PASSPHRASE；已锁定的令牌按厂商方法解锁。"}},
	CodeKeystorePassphrase: {
		Text{"The passphrase does not open the keystore", "Give the right one with --passphrase-file or YIZHAN_PASSPHRASE; if it is right, the named file is damaged: restore it."},
		Text{"口令无法打开密钥库", "请用 --passphrase-file 或 YIZHAN_PASSPHRASE 提供正确的口令；如口令无误，则所列文件已损坏，请恢复。"}},
	CodeLedgerRolledBack: {
		Text{"The ledger is older than what neighbours have seen", "The data directory was put back to an earlier state: stop the node and restore it properly."},
		Text{"台账落后于邻居节点所见", "数据目录被回退到旧状态：请停止节点并按规程恢复。"}},
	CodeFileSystem: {
		Text{"The data directory is on a file system that keeps no promises", "Nothing was started. Move the data directory to a local disk (ext4 or XFS) of this machine."},
		Text{"数据目录所在的文件系统无法保证数据安全", "未启动。请将数据目录迁移到本机的本地磁盘（ext4 或 XFS）。"}},
	CodeQuota: {
		Text{"The agency's quota is used up", "Nothing was taken. Repeat the same request after the time in Retry-After; the operator sets quotas in [quota] of config.toml."},
		Text{"本单位的发文配额已用完", "本次未接收。请在 Retry-After 所示时间后原样重试；配额由运维人员在 config.toml 的 [quota] 中设置。"}},
	CodeMediumFull: {
		Text{"The medium or the gate's directory is full", "Make room there, or take another medium, and export again. Nothing is lost: what did not fit leaves with the next export."},
		Text{"介质或网闸目录空间不足", "请清理该目录或更换介质后重新导出。数据不会丢失，未写入的内容随下次导出发出。"}},
	CodeUploadUnfinished: {
		Text{"An upload is not whole yet", "Ask with HEAD how far it came, send the rest with PATCH, and submit the document again."},
		Text{"上传尚未完成", "请用 HEAD 查询已收到的字节数，用 PATCH 续传其余部分后重新提交公文。"}},
	CodeWebhookAddress: {
		Text{"This address may not be called", "Give an https address that the node may reach. If the receiver is inside, have the operator allow its network in [webhooks] of config.toml."},
		Text{"该地址不允许回调", "请提供节点可以访问的 https 地址；如接收系统位于内网，请由运维人员在 config.toml 的 [webhooks] 中放行其网段。"}},
	CodeTooSlow: {
		Text{"The document comes too slowly", "Nothing was stored. Look at the network between the system and the node, then send it again with the same Idempotency-Key."},
		Text{"公文上传过慢", "未存储任何内容。请检查业务系统与节点之间的网络，再以同一 Idempotency-Key 重发。"}},
	CodeNoSpace: {
		Text{"The disk has no room for new documents", "Nothing was taken. Repeat the same request later; the operator makes room (yizhan doctor), and what is here is still delivered."},
		Text{"磁盘空间不足，暂不接收新公文", "本次未接收。请稍后原样重试，并联系运维人员清理磁盘（yizhan doctor）；已接收的公文照常投递。"}},
	CodeWrongUser: {
		Text{"The data directory is another user's", "Run this as the node's user: sudo -u USER yizhan …. Files that another user makes there would keep the node from starting."},
		Text{"数据目录属于其他用户", "请以节点的运行用户执行：sudo -u 用户 yizhan …；其他用户在其中新建的文件会使节点无法启动。"}},
	CodeRootMissing: {
		Text{"A directory of payloads is missing", "Mount its disk and start the node again. Do not make an empty directory in its place."},
		Text{"缺少数据目录", "请挂载其磁盘后重新启动节点；请勿在原处新建空目录。"}},
	CodeStoreDamaged: {
		Text{"The store is damaged", "Change nothing in the data directory and look at its disk. Restore from a copy with yizhan backup restore; the neighbours give again what came since."},
		Text{"存储已损坏", "请勿改动数据目录，并检查其所在磁盘；请用 yizhan backup restore 从备份恢复，相邻节点将补交此后的公文。"}},
	CodeBackupDamaged: {
		Text{"The copy is not what was written", "Verify the copies before it with yizhan backup verify, and restore the newest that is intact; replace the disk of the repository."},
		Text{"备份已损坏，与写入时不一致", "请用 yizhan backup verify 检查更早的备份，恢复其中最新的完好备份，并更换备份库所在磁盘。"}},
	CodeContentType: {
		Text{"A file is not what it says it is, or of a kind that may not pass", "Send it as OFD or PDF under its right name; what it really is stands in the operator's record of the refusal."},
		Text{"文件的实际类型与所称不符，或不允许通过", "请以正确的文件名和类型重新提交，建议使用 OFD 或 PDF。"}},
	CodeContentDamaged: {
		Text{"A file is damaged", "Open it on your side, export it again and send the document anew."},
		Text{"文件已损坏或不完整", "请在本单位打开核对，重新导出后另行发送。"}},
	CodeContentDigest: {
		Text{"A signed OFD file was changed after it was signed", "Have it sealed again by whoever sealed it, and send the document anew. Digests other than SM3 and SHA-256 prove nothing."},
		Text{"OFD 文件签章后被改动，或其摘要算法不可信", "请由原签章单位重新签章（摘要须为 SM3 或 SHA-256）后另行发送。"}},
	CodeContentActive: {
		Text{"A file holds a program, a script, macros or embedded files", "Remove them (print it to OFD or PDF), send attachments as files of their own, and send the document anew."},
		Text{"文件含有程序、脚本、宏或内嵌文件", "请去除后（如转换为版式文件）重新发送；附件请单独提交。"}},
	CodeContentHidden: {
		Text{"A file is encrypted by itself and cannot be looked into", "Remove the password and send the document anew: the exchange encrypts it on its way."},
		Text{"文件自身已加密，无法检查", "请去除文件口令后重新发送；传输过程由本系统加密。"}},
	CodeContentArchive: {
		Text{"An archive may not pass", "Send the files by themselves, each as an attachment."},
		Text{"压缩包不允许通过", "请解压后将各文件分别作为附件发送。"}},
	CodeContentMalware: {
		Text{"The virus scanner found something in a file", "Do not send it again. Have your computers looked at, and send the document anew from a clean one."},
		Text{"文件中检出病毒或恶意代码", "请勿再次发送；请检查本单位终端，处置后重新制作并发送。"}},
	CodeContentTooLarge: {
		Text{"A file is larger inside than can be looked into", "Split it, or export images at a lower resolution, and send the document anew."},
		Text{"文件内容超过检查上限", "请拆分文件或降低图像分辨率后重新发送。"}},
	CodeInspectionMissing: {
		Text{"The document has no key for the inspection point on its way", "Send it anew: the sender's node needs the directory that names the inspection point."},
		Text{"公文未附途经检查点所需的密钥", "请更新发文节点的名录后重新发送。"}},
	CodeClassificationMark: {
		Text{"A title, document number or file name carries a mark of a state secret", "If it is one, it must use the classified network. If it is none, remove the mark (绝密, 机密 or 秘密 with a star, in brackets or set apart) and submit again."},
		Text{"标题、文号或文件名带有国家秘密标志", "如确属国家秘密，须经涉密网络传输；如不属国家秘密，请去掉密级标志（带★、加括号或单独标注的绝密、机密、秘密）后重新提交。"}},
	CodeGuardKind: {
		Text{"Documents of this kind do not pass the boundary", "Choose the right kind, or ask the operator of the boundary node what may pass."},
		Text{"边界不放行此类公文", "请核对公文类别，或向边界节点运维人员了解可放行的类别。"}},
	CodeGuardSize: {
		Text{"The document is larger than the boundary lets pass", "Split the attachments over several documents, or ask the operator of the boundary node for its bound."},
		Text{"公文大小超过边界上限", "请将附件拆分到多份公文，或向边界节点运维人员了解大小上限。"}},
	CodeGuardPair: {
		Text{"The boundary does not let this sender send to this recipient", "Check the recipient; if it is the right one, have the operator of the boundary node add the pair to its policy."},
		Text{"边界不允许该发文单位向该收文单位发文", "请核对收文单位；如无误，请联系边界节点运维人员在放行策略中增加该收发关系。"}},
	CodeGuardRefused: {
		Text{"An administrator of the boundary refused the document", "The reason stands beside the receipt; settle it with the administrator and send a new document."},
		Text{"边界管理员审核未通过", "理由见回执附言；请与管理员沟通后另行发文。"}},
	CodeGuardApproval: {
		Text{"The approval does not count", "Nothing was changed. Look at the document again with yizhan guard show, and sign with the key of an administrator that the directory names and who has not signed yet."},
		Text{"该审核意见无效", "未作任何更改。请用 yizhan guard show 重新核对，并由名录所列、尚未签署的管理员以本人密钥签署。"}},
	CodeUnknownCritical: {
		Text{"The document asks for something that a node on its way does not know", "Have the operator of that node upgrade its program, or send it without the new feature."},
		Text{"公文要求途经节点支持其尚不了解的功能", "请联系该节点运维人员升级程序，或不使用该新功能重新发文。"}},
	CodeNotSignedFor: {
		Text{"The document is not signed for", "Sign for it first; what became of it is said afterwards."},
		Text{"该公文尚未签收", "请先签收，再反馈采用或办结。"}},
	CodePrecondition: {
		Text{"The document has changed since it was looked at", "Nothing was done. Look at it again, and repeat with the new ETag in If-Match."},
		Text{"该公文状态已变化", "未作任何操作。请重新查询，再以新的 ETag 作为 If-Match 重试。"}},
	CodeDigestMismatch: {
		Text{"The bytes that came do not have the digest that was named", "Nothing was accepted. Compute the digest over the bytes as they are sent, and send them again."},
		Text{"收到的内容与所附摘要不一致", "未予受理。请按实际发送的字节重新计算摘要后重发。"}},
	CodeRateLimited: {
		Text{"Too many requests with this API key", "Nothing was done. Repeat the same request after the time in Retry-After; ask in greater steps (wait, limit, /v1/events)."},
		Text{"该接口密钥请求过于频繁", "未作任何操作。请在 Retry-After 所示时间后原样重试；可改用长轮询、批量或事件流减少请求。"}},
	CodeTestMode: {
		Text{"An echo agency is for test domains", "Nothing was started. Name the domain test-… or give --echo-anyway where every recipient knows that it answers by itself."},
		Text{"回声单位仅限测试信任域", "未启动。请使用名称以 test 开头的信任域，或在各方知情时加 --echo-anyway。"}},
	CodeTemporary: {
		Text{"Not possible at the moment", "Repeat the same request in a little while."},
		Text{"暂时无法处理", "请稍后原样重试。"}},
	CodeInternal: {
		Text{"An internal fault", "Repeat the request; if it stays, give the operator the time and the request."},
		Text{"内部错误", "请重试；如仍出现，请将时间与请求提供给运维人员。"}},
}
