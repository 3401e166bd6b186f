package guard

import "testing"

func TestMarks(t *testing.T) {
	for _, text := range []string{
		"机密★10年", "秘密★", "绝密★长期", "机密 ★ 长期", "机　密　★", "机密☆5年", "机密*10年", "机密＊10年", "★机密", "绝密级★30年",
		"关于做好防汛工作的通知（机密★1年）", "【机密】关于做好防汛工作的通知", "（绝密）人事安排", "关于人事安排的通知(秘密)", "[秘密 长期] 方案",
		"〔机密10年〕方案", "［绝密］", "機密★", "絕密★", "祕密★", "【 机 密 】", "（机密五个月）",
		"机密", "机密.docx", "绝密.pdf", "名单_机密.xlsx", "机密-名单.xlsx", "秘密＿方案.doc", "机密10年.pdf", "机密级.pdf", "国家秘密★3年",
		"机\u200b密★", "秘密\ufe0f★", "机密⭐10年", "1.机密.pdf", "工作秘密和机密★",
		"机\u2800密★", "秘\u115f密\uffa0★", "绝密⭑30年", "机密✶",
	} {
		if !Marked(text) {
			t.Errorf("%q passes", text)
		}
	}
	for _, text := range []string{
		"", "关于商业秘密保护的通知", "国家秘密保护条例宣传方案", "保守秘密承诺书", "保守秘密", "秘密书记处旧址修缮", "关于印发《保守国家秘密法》的通知",
		"机密性评估报告", "机密级会议保障经验交流", "秘密会议旧址", "绝密档案解密工作安排", "关于“机密”一词的用法", "《绝密》观后感",
		"工作秘密★3年", "（工作秘密）", "工作秘密.docx", "商业秘密★5年", "工 作 秘 密 ★", "（商业秘密）保护指南", "涉及国家秘密的通知.pdf",
		"动机密切相关", "★重点工作安排", "（秘密工作纪律）", "五星★酒店", "核心机密泄露案例", "保密★自查", "机关密码★管理",
	} {
		if Marked(text) {
			t.Errorf("%q is refused", text)
		}
	}
}

// FuzzMarked: no text makes it panic, and one that is marked stays so when
// something that cannot be seen is put between.
func FuzzMarked(f *testing.F) {
	for _, s := range []string{"机密★10年", "【秘密】", "商业秘密", "机密.docx", "机密五个", "\xff★"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		spaced := ""
		for _, r := range s {
			spaced += string(r) + "　"
		}
		if Marked(s) != Marked(spaced) {
			t.Fatal("white space counts")
		}
	})
}
