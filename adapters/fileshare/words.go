package fileshare

import (
	"github.com/yizhan-gateway/yizhan/adapters/fileshare/manifest"
	"github.com/yizhan-gateway/yizhan/exchange"
)

// Outcome is what became of a document, or of a file.
type Outcome string

// The outcomes.
const (
	Submitted   Outcome = "submitted"   // now
	Done        Outcome = "done"        // in an earlier run
	Duplicate   Outcome = "duplicate"   // the same was submitted from elsewhere
	Quarantined Outcome = "quarantined" // somebody has to mend it
	Waiting     Outcome = "waiting"     // not whole yet, or the node is away
	Held        Outcome = "held"        // because of another document of its batch
	Undecided   Outcome = "undecided"   // it was tried long ago and never answered
	Unmatched   Outcome = "unmatched"   // a file that belongs to no document
	Ready       Outcome = "ready"       // it would be submitted; of a scan
)

var outcomeWords = map[Outcome]string{
	Submitted: "已提交", Done: "此前已提交", Duplicate: "重复（未再次提交）", Quarantined: "已隔离", Waiting: "等待",
	Held: "整批暂缓", Undecided: "结果待核实", Unmatched: "未匹配", Ready: "可提交",
}

// Chinese gives the word that clerks read.
func (o Outcome) Chinese() string { return outcomeWords[o] }

// The codes of what is wrong with a document, besides those of package manifest and
// those a node answers with.
const (
	CodeMissing    = "import_missing"
	CodeTwice      = "import_twice"
	CodeIrregular  = "import_irregular"
	CodeEmpty      = "import_empty"
	CodeName       = "import_name"
	CodePath       = "import_path"
	CodeNoBody     = "import_no_body"
	CodeAmbiguous  = "import_ambiguous"
	CodeRecipient  = "import_recipient"
	CodeField      = "import_field"
	CodeUnstable   = "import_unstable"
	CodeChanged    = "import_changed"
	CodeBusy       = "import_busy"
	CodeBatch      = "import_batch"
	CodeUndecided  = "import_undecided"
	CodeDuplicate  = "import_duplicate"
	CodeOther      = "import_other_metadata"
	CodeUnmatched  = "import_unmatched"
	CodeUnreadable = "import_unreadable"
)

type words struct{ zh, en exchange.Text }

var texts = map[string]words{
	CodeMissing: {
		exchange.Text{Title: "清单所列的文件不存在", Fix: "请把该文件放到清单所在文件夹（核对文件名与扩展名），或更正清单中的文件名。"},
		exchange.Text{Title: "A file that the list names is not there", Fix: "Put the file beside the list, under exactly this name, or correct the list."}},
	CodeTwice: {
		exchange.Text{Title: "同一文件被多行引用", Fix: "请核对是哪一份公文的文件，每个文件只能属于清单中的一行；确需共用时请各放一份副本。"},
		exchange.Text{Title: "Several rows name one file", Fix: "Find out which document it belongs to; a file belongs to one row. Put a copy there if two need it."}},
	CodeIrregular: {
		exchange.Text{Title: "不是普通文件（快捷方式、链接、文件夹或设备）", Fix: "请放入文件本身，不要放链接。"},
		exchange.Text{Title: "Not a regular file (a link, a folder or a device)", Fix: "Put the file itself there, no link to it."}},
	CodeEmpty: {
		exchange.Text{Title: "文件为空（0 字节）", Fix: "文件可能没有保存或复制完整，请重新放入。"},
		exchange.Text{Title: "The file is empty", Fix: "It was perhaps not saved or not copied to its end; put it there again."}},
	CodeName: {
		exchange.Text{Title: "文件名无法识别（既不是 UTF-8 也不是 GB18030，或含有换行等控制字符）", Fix: "请将文件改名后重新放入。"},
		exchange.Text{Title: "The file's name is no text, or holds control characters", Fix: "Rename the file."}},
	CodePath: {
		exchange.Text{Title: "清单中的文件路径不允许", Fix: "请填写清单所在文件夹之内的相对路径，不能含有 .. 或盘符。"},
		exchange.Text{Title: "The list names a path that is not allowed", Fix: "Write a path below the folder of the list, without .. and without a drive."}},
	CodeNoBody: {
		exchange.Text{Title: "没有填写正文文件", Fix: "请在“正文”列填写正文的文件名。"},
		exchange.Text{Title: "No body file is named", Fix: "Write the name of the body file."}},
	CodeAmbiguous: {
		exchange.Text{Title: "名称对应多个单位", Fix: "请改用所列候选单位的完整名称或统一社会信用代码。"},
		exchange.Text{Title: "Several agencies go by this name", Fix: "Write the full name or the code of one of the candidates."}},
	CodeRecipient: {
		exchange.Text{Title: "名录中没有该单位", Fix: "请核对单位名称，可参考所列候选；或联系名录机构登记。"},
		exchange.Text{Title: "No agency of the directory goes by this name", Fix: "Check the name; the candidates may help. Or ask the domain authority to admit the agency."}},
	CodeField: {
		exchange.Text{Title: "填写内容不符合要求", Fix: "请按提示更正该列。"},
		exchange.Text{Title: "A field is not as it must be", Fix: "Correct it as the detail says."}},
	CodeUnstable: {
		exchange.Text{Title: "文件可能还在写入", Fix: "无需处理，写完后自动继续。"},
		exchange.Text{Title: "A file may still be written", Fix: "Nothing to do: it goes on when it is whole."}},
	CodeChanged: {
		exchange.Text{Title: "读取过程中文件发生变化", Fix: "无需处理，文件不再变化后自动继续；本次没有提交任何内容。"},
		exchange.Text{Title: "A file changed while it was read", Fix: "Nothing to do: nothing was submitted, and it goes on when the file stands still."}},
	CodeBusy: {
		exchange.Text{Title: "节点暂时不能接收", Fix: "无需处理，稍后自动重试；如长时间不恢复请联系节点运维人员。"},
		exchange.Text{Title: "The node does not take it at the moment", Fix: "Nothing to do: it is tried again. If it lasts, call the node's operator."}},
	CodeBatch: {
		exchange.Text{Title: "同批有错误，整批未提交", Fix: "请先更正所列错误，再次导入时整批一起提交。"},
		exchange.Text{Title: "Something else in the batch is wrong, so nothing of it was submitted", Fix: "Correct what is named; the batch is submitted as a whole then."}},
	CodeUndecided: {
		exchange.Text{Title: "较早前提交过但没有得到答复，不能确定是否已发出", Fix: "请在已发公文中核对；确认没有发出时，用 yizhan import retry 重新提交。"},
		exchange.Text{Title: "It was submitted long ago without an answer", Fix: "Look for it among the sent documents; if it is not there, run yizhan import retry."}},
	CodeDuplicate: {
		exchange.Text{Title: "内容、收文单位、文号均相同的公文已提交", Fix: "无需处理；如确需再次发送，请使用“重发”。"},
		exchange.Text{Title: "The same content was submitted to the same recipients under the same number", Fix: "Nothing to do; to send it again, use resend."}},
	CodeOther: {
		exchange.Text{Title: "相同内容的公文已以不同的标题等信息提交", Fix: "请在已发公文中核对；如需更正，请撤回后另行发文。"},
		exchange.Text{Title: "The same content was submitted before with other metadata", Fix: "Look for it among the sent documents; recall it if it is to be corrected."}},
	CodeUnmatched: {
		exchange.Text{Title: "文件不属于任何公文", Fix: "请在清单中补充一行，或按命名规则改名，或移出共享目录。"},
		exchange.Text{Title: "The file belongs to no document", Fix: "Add a row to the list, rename it by the rules, or take it away."}},
	CodeUnreadable: {
		exchange.Text{Title: "文件无法读取", Fix: "请检查文件权限与共享存储，再用 yizhan import retry 重试。"},
		exchange.Text{Title: "The file cannot be read", Fix: "Check its permissions and the disk of the share, then run yizhan import retry."}},
	manifest.CodeEncoding: {
		exchange.Text{Title: "清单的文字编码无法识别", Fix: "请另存为“CSV UTF-8”或中文 Windows 默认的 CSV（GBK）后重新放入。"},
		exchange.Text{Title: "The list is neither UTF-8 nor GB18030", Fix: "Save it as CSV UTF-8."}},
	manifest.CodeTooLarge: {
		exchange.Text{Title: "清单过大", Fix: "请拆分为多个清单；如是工作簿，请删除多余的工作表与格式。"},
		exchange.Text{Title: "The list is too large", Fix: "Split it; in a workbook, remove sheets and formats that are not needed."}},
	manifest.CodeShape: {
		exchange.Text{Title: "清单文件格式有误", Fix: "请用电子表格软件打开核对（尤其是引号），另存后重新放入。"},
		exchange.Text{Title: "The list is not of the format that its name says", Fix: "Open it in a spreadsheet program, look at the quotes above all, and save it again."}},
	manifest.CodeColumns: {
		exchange.Text{Title: "清单的表头有误", Fix: "表头至少要有“正文”，每个含义只能有一列；参见 docs/import.zh-CN.md 的表头一览。"},
		exchange.Text{Title: "The headings of the list are wrong", Fix: "There must be 正文 (body) at least, and one column for each field; docs/import.md lists them."}},
	manifest.CodeXML: {
		exchange.Text{Title: "XML 清单不合规", Fix: "清单不得含有 DTD、实体和多层嵌套；请按 docs/import.zh-CN.md 的样例生成。"},
		exchange.Text{Title: "The XML list is not as it must be", Fix: "No DTD, no entities, three levels of elements; docs/import.md has an example."}},
	manifest.CodeCell: {
		exchange.Text{Title: "单元格内容有误", Fix: "请更正该单元格。"},
		exchange.Text{Title: "A cell is not as it must be", Fix: "Correct the cell."}},
}

// Explain gives cause and remedy of a code, of ours or of a node.
func Explain(code, lang string) exchange.Text {
	w, known := texts[code]
	switch {
	case !known:
		return exchange.Explain(code, lang)
	case lang == "zh":
		return w.zh
	}
	return w.en
}
