package main

import (
	"archive/zip"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
)

// sampleFiles writes the demo's document: a body and two attachments. One
// attachment is a real OFD when examples is a folder with some.
func sampleFiles(dir, examples string) ([]upload, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	ofd, err := sampleOFD("关于开展公文交换试点工作的通知")
	if err != nil {
		return nil, err
	}
	appendix, err := sampleOFD("试点单位名单")
	if err != nil {
		return nil, err
	}
	if real, err := os.ReadFile(filepath.Join(examples, "zsbk.ofd")); err == nil {
		appendix = real
	}
	table := []byte("\xef\xbb\xbf序号,单位,联系人\r\n1,示范单位甲,办公室\r\n2,示范单位乙,文书科\r\n")
	var out []upload
	for _, f := range []struct {
		role, name string
		content    []byte
	}{{"body", "通知正文.ofd", ofd}, {"attachment", "附件1 试点单位名单.ofd", appendix}, {"attachment", "附件2 联系表.csv", table}} {
		path := filepath.Join(dir, f.name)
		if err := os.WriteFile(path, f.content, 0o600); err != nil {
			return nil, err
		}
		out = append(out, upload{f.role, path})
	}
	return out, nil
}

// sampleOFD makes a one-page document in OFD (GB/T 33190): a zip of XML parts.
func sampleOFD(text string) ([]byte, error) {
	const ns = `xmlns:ofd="http://www.ofdspec.org/2016"`
	parts := []struct{ name, xml string }{
		{"OFD.xml", `<ofd:OFD ` + ns + ` Version="1.0" DocType="OFD"><ofd:DocBody><ofd:DocInfo><ofd:DocID>00000000000000000000000000000001</ofd:DocID></ofd:DocInfo><ofd:DocRoot>Doc_0/Document.xml</ofd:DocRoot></ofd:DocBody></ofd:OFD>`},
		{"Doc_0/Document.xml", `<ofd:Document ` + ns + `><ofd:CommonData><ofd:MaxUnitID>4</ofd:MaxUnitID><ofd:PageArea><ofd:PhysicalBox>0 0 210 297</ofd:PhysicalBox></ofd:PageArea><ofd:PublicRes>PublicRes.xml</ofd:PublicRes></ofd:CommonData><ofd:Pages><ofd:Page ID="1" BaseLoc="Pages/Page_0/Content.xml"/></ofd:Pages></ofd:Document>`},
		{"Doc_0/PublicRes.xml", `<ofd:Res ` + ns + ` BaseLoc="Res"><ofd:Fonts><ofd:Font ID="2" FontName="宋体"/></ofd:Fonts></ofd:Res>`},
		{"Doc_0/Pages/Page_0/Content.xml", `<ofd:Page ` + ns + `><ofd:Content><ofd:Layer ID="3"><ofd:TextObject ID="4" Boundary="30 40 150 12" Font="2" Size="6"><ofd:TextCode X="0" Y="8">` + text + `</ofd:TextCode></ofd:TextObject></ofd:Layer></ofd:Content></ofd:Page>`},
	}
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for _, p := range parts {
		w, err := z.Create(p.name)
		if err != nil {
			return nil, err
		}
		if _, err := fmt.Fprintf(w, `<?xml version="1.0" encoding="UTF-8"?>%s`, p.xml); err != nil {
			return nil, err
		}
	}
	err := z.Close()
	return b.Bytes(), err
}
