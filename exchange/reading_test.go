package exchange

import (
	"strings"
	"testing"
	"time"
)

func TestReadLabel(t *testing.T) {
	for _, c := range []struct {
		text  string
		label Label
		term  string
	}{
		{"公开", Public, ""}, {"public", Public, ""}, {"Public", Public, ""}, {"（公开）", Public, ""}, {"公開", Public, ""},
		{"内部", Internal, ""}, {"内 部", Internal, ""}, {"內部", Internal, ""}, {"密级：内部", Internal, ""},
		{"工作秘密", WorkSecret, ""}, {"work_secret", WorkSecret, ""}, {"work-secret", WorkSecret, ""}, {"ＷＯＲＫ＿ＳＥＣＲＥＴ", WorkSecret, ""},
		{"秘密", Secret, ""}, {"秘密★", Secret, ""}, {"秘密★1年", Secret, "1年"}, {"秘 密 ☆ １０年", Secret, "10年"}, {"★秘密", Secret, ""},
		{"祕密", Secret, ""}, {"国家秘密", Secret, ""}, {"秘密级", Secret, ""}, {"【秘密】", Secret, ""}, {"secret", Secret, ""}, {"秘密*长期", Secret, "长期"},
		{"机密", Confidential, ""}, {"機密", Confidential, ""}, {"机密★长期", Confidential, "长期"}, {"机密级★6个月", Confidential, "6个月"},
		{"密级:机密", Confidential, ""}, {"confidential", Confidential, ""}, {"机\u200b密", Confidential, ""}, {"内部（机密）", Confidential, ""},
		{"绝密", TopSecret, ""}, {"絕密", TopSecret, ""}, {"绝密★30年", TopSecret, "30年"}, {"top_secret", TopSecret, ""}, {"Top Secret", TopSecret, ""}, {"TOP-SECRET", TopSecret, ""},
		{"", "", ""}, {"geheim", "", ""}, {"内部★1年", "", ""}, {"工作秘密★", "", ""}, {"商业秘密", "", ""}, {"非密", "", ""}, {"★", "", ""},
	} {
		l, term, ok := ReadLabel(c.text)
		if l != c.label || term != c.term || ok != (c.label != "") {
			t.Errorf("%q: %q %q %v, want %q %q", c.text, l, term, ok, c.label, c.term)
		}
	}
}

// FuzzReadLabel: no writing of 机密 or 绝密 passes for a label that is carried.
func FuzzReadLabel(f *testing.F) {
	for _, s := range []string{"机密★10年", "工作秘密", "（绝密）", "内部", "public", "秘\u200b密", "top secret"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		l, term, ok := ReadLabel(text)
		if ok != (l != "") || ok && l.Rank() >= len(labels) || term != "" && !l.StateSecret() {
			t.Fatalf("%q: %q %q %v", text, l, term, ok)
		}
		if s := Folded(text); (strings.Contains(s, "机密") || strings.Contains(s, "绝密")) && !l.StateSecret() {
			t.Fatalf("%q is taken for %q", text, l)
		}
		if ok && !l.StateSecret() {
			if again, _, _ := ReadLabel(l.Chinese()); again != l {
				t.Fatalf("%q: %q", l.Chinese(), again)
			}
		}
	})
}

func TestReadUrgency(t *testing.T) {
	for _, c := range []struct {
		text    string
		urgency Urgency
		mark    string
	}{
		{"", Normal, ""}, {"normal", Normal, ""}, {"平件", Normal, ""}, {"一般", Normal, ""}, {"普通", Normal, ""}, {"无", Normal, ""},
		{"平急", Normal, "平急"}, {"加急", Urgent, ""}, {" 加 急 ", Urgent, ""}, {"【加急】", Urgent, ""}, {"urgent", Urgent, ""}, {"急件", Urgent, "急件"},
		{"特急", VeryUrgent, ""}, {"very_urgent", VeryUrgent, ""}, {"Very Urgent", VeryUrgent, ""}, {"紧急程度：特急", VeryUrgent, ""}, {"特提", VeryUrgent, "特提"},
	} {
		if u, mark, ok := ReadUrgency(c.text); !ok || u != c.urgency || mark != c.mark {
			t.Errorf("%q: %q %q %v, want %q %q", c.text, u, mark, ok, c.urgency, c.mark)
		}
	}
	for _, bad := range []string{"soon", "急", "特特急", "3"} {
		if u, mark, ok := ReadUrgency(bad); ok || u != "" || mark != "" {
			t.Errorf("%q: %q %q", bad, u, mark)
		}
	}
	// No grade of a telegram overtakes a higher one.
	last := -1
	for _, grade := range []string{"平急", "加急", "特急", "特提"} {
		u, _, _ := ReadUrgency(grade)
		if u.Rank() < last {
			t.Errorf("%s has rank %d behind %d", grade, u.Rank(), last)
		}
		last = u.Rank()
	}
}

// FuzzReadUrgency: what is read has a lane, and the mark is read as the same.
func FuzzReadUrgency(f *testing.F) {
	for _, s := range []string{"", "特提", "平 急", "加急", "very-urgent", "【特急】"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		u, mark, ok := ReadUrgency(text)
		if !ok && (u != "" || mark != "") || ok && u.Chinese() == string(u) {
			t.Fatalf("%q: %q %q %v", text, u, mark, ok)
		}
		if mark != "" {
			if again, same, _ := ReadUrgency(mark); again != u || same != mark {
				t.Fatalf("%q: %q %q, then %q %q", text, u, mark, again, same)
			}
		}
	})
}

func TestReadDate(t *testing.T) {
	for text, want := range map[string]string{
		"2026-11-23": "2026-11-23", "2026年11月23日": "2026-11-23", "2026/1/2": "2026-01-02", "2026.11.23": "2026-11-23",
		"２０２６年１月２日": "2026-01-02", " 2026-11-23 ": "2026-11-23",
		"": "", "2026-02-30": "", "23.11.2026": "", "2026-11-23T00:00:00Z": "", "11月23日": "", "1899-01-01": "", "2026--1-1": "",
	} {
		if got, ok := ReadDate(text); got != want || ok != (want != "") {
			t.Errorf("%q: %q %v, want %q", text, got, ok, want)
		}
	}
}

// FuzzReadDate: what is read is a date, and read as itself.
func FuzzReadDate(f *testing.F) {
	for _, s := range []string{"2026年11月23日", "2026-11-23", "2026.1.2", "99-1-1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		day, ok := ReadDate(text)
		if !ok {
			return
		}
		if _, err := time.Parse(time.DateOnly, day); err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		if again, ok := ReadDate(day); !ok || again != day {
			t.Fatalf("%q: %q, then %q", text, day, again)
		}
	})
}
