package exchange

// Label is the secrecy of a document, ordered from public upwards. State
// secrets are recognised so that they can be refused, always: SM2, SM3 and
// SM4 are commercial cryptography and may not protect them (Cryptography Law
// of the PRC, arts. 7 and 8).
type Label string

// The labels in their order.
const (
	Public       Label = "public"
	Internal     Label = "internal"
	WorkSecret   Label = "work_secret"
	Secret       Label = "secret"
	Confidential Label = "confidential"
	TopSecret    Label = "top_secret"
)

type named[T ~string] struct {
	word    T
	chinese string
}

var labels = []named[Label]{
	{Public, "公开"}, {Internal, "内部"}, {WorkSecret, "工作秘密"},
	{Secret, "秘密"}, {Confidential, "机密"}, {TopSecret, "绝密"},
}

// lookup finds a word by its English or Chinese form; -1 when there is none.
func lookup[T ~string](list []named[T], s string) int {
	for i, n := range list {
		if string(n.word) == s || n.chinese == s {
			return i
		}
	}
	return -1
}

// ParseLabel accepts the English word or the Chinese one.
func ParseLabel(s string) (Label, error) {
	if i := lookup(labels, s); i >= 0 {
		return labels[i].word, nil
	}
	return "", Fail(CodeInvalidDocument, "label: one of public 公开, internal 内部, work_secret 工作秘密 is expected")
}

// Rank orders labels; an unknown label ranks above all, so that it is refused.
func (l Label) Rank() int {
	if i := lookup(labels, string(l)); i >= 0 && labels[i].word == l {
		return i
	}
	return len(labels)
}

// StateSecret says whether the label is 秘密 or above (or unknown).
func (l Label) StateSecret() bool { return l.Rank() >= Secret.Rank() }

// Chinese gives the official word.
func (l Label) Chinese() string { return chinese(labels, l) }

func chinese[T ~string](list []named[T], w T) string {
	for _, n := range list {
		if n.word == w {
			return n.chinese
		}
	}
	return string(w)
}

// Urgency is 紧急程度; it decides the lane a document takes on a link.
type Urgency string

// The urgencies in their order.
const (
	Normal     Urgency = "normal"
	Urgent     Urgency = "urgent"
	VeryUrgent Urgency = "very_urgent"
)

var urgencies = []named[Urgency]{{Normal, "平件"}, {Urgent, "加急"}, {VeryUrgent, "特急"}}

// ParseUrgency accepts the English word or the Chinese one; empty is Normal.
func ParseUrgency(s string) (Urgency, error) {
	if s == "" {
		return Normal, nil
	}
	if i := lookup(urgencies, s); i >= 0 {
		return urgencies[i].word, nil
	}
	return "", Fail(CodeInvalidDocument, "urgency: one of normal, urgent 加急, very_urgent 特急 is expected")
}

// Rank orders urgencies; an unknown one ranks as Normal.
func (u Urgency) Rank() int { return max(0, lookup(urgencies, string(u))) }

// Chinese gives the official word.
func (u Urgency) Chinese() string { return chinese(urgencies, u) }

// Kind is what a document is for.
type Kind string

// The kinds.
const (
	Official    Kind = "official"
	Information Kind = "information"
	Notice      Kind = "notice"
	Material    Kind = "material"
)

var kinds = []named[Kind]{{Official, "公文"}, {Information, "政务信息"}, {Notice, "通知"}, {Material, "资料"}}

// ParseKind accepts the English word or the Chinese one; empty is Official.
func ParseKind(s string) (Kind, error) {
	if s == "" {
		return Official, nil
	}
	if i := lookup(kinds, s); i >= 0 {
		return kinds[i].word, nil
	}
	return "", Fail(CodeInvalidDocument, "kind: one of official 公文, information 政务信息, notice 通知, material 资料 is expected")
}

// Chinese gives the official word.
func (k Kind) Chinese() string { return chinese(kinds, k) }
