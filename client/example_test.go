package client_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/yizhan-gateway/yizhan/client"
)

// A document from 甲 to 乙: handed in, found in the inbox, collected, signed for, traced.
func Example() {
	ctx := context.Background()
	site := start()

	sender, err := client.New(client.Config{Server: site.url, Key: site.keys["甲"]})
	if err != nil {
		fmt.Println(err)
		return
	}
	sent, err := sender.Submit(ctx, &client.Document{
		Title: "关于开展公文交换试点的通知", To: client.To("示范乙"), Label: "内部", Urgency: "加急",
		DocType: "通知", Number: "示范办发[2026]001号",
	}, client.FileOf("正文.txt", []byte("正文的内容")), client.FileOf("附件1.txt", []byte("附件的内容")))
	if err != nil {
		fmt.Println(err)
		return
	}

	receiver, err := client.New(client.Config{Server: site.url, Key: site.keys["乙"]})
	if err != nil {
		fmt.Println(err)
		return
	}
	for doc, err := range receiver.Inbox(ctx, 0) {
		if err != nil {
			fmt.Println(err)
			return
		}
		if doc.Document != sent.Document {
			continue // other examples' documents
		}
		fmt.Println(doc.SenderName, doc.Number)
		for _, f := range doc.Files {
			content, err := receiver.File(ctx, doc.Document, f.Index)
			if err != nil {
				fmt.Println(err)
				return
			}
			text, err := io.ReadAll(content)
			fmt.Println(content.Name, string(text), err)
			_ = content.Close() // it was only read
		}
		break
	}
	acted, err := receiver.Accept(ctx, sent.Document, client.Act{Actor: client.Person{Name: "王伟"}, Opinion: "已阅", Number: "收〔2026〕1号"})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(acted.StageZH)

	trace, err := sender.Trace(ctx, sent.Document)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(trace.StateZH, trace.ReceiptsVerified)
	// Output:
	// 示范单位甲 示范办发〔2026〕1号
	// 正文.txt 正文的内容 <nil>
	// 附件1.txt 附件的内容 <nil>
	// 签收
	// 全部签收 true
}

// Recipients and mistakes are seen before anything is sent.
func ExampleClient_Preview() {
	p, err := start().as("甲").Preview(context.Background(), &client.Document{
		Title: "标题", Label: "内部", To: client.To("各示范单位"), Cc: client.To("示范单位丁"),
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, r := range p.Recipients {
		fmt.Println(r.Name, r.By, r.Group)
	}
	for _, e := range p.Errors {
		fmt.Println(e.Field, e.Code)
	}
	// Output:
	// 示范单位乙 group 各示范单位
	// 示范单位丙 group 各示范单位
	// cc[0] unknown_recipient
}

// A refusal has a code for programs and says in two languages what to do.
func ExampleProblem() {
	_, err := start().as("甲").Submit(context.Background(), &client.Document{
		Title: "标题", Label: "机密★10年", To: client.To("示范乙"),
	}, client.FileOf("正文.txt", []byte("x")))
	var p *client.Problem
	if errors.As(err, &p) {
		fmt.Println(p.Code, p.Status)
		fmt.Println(p.TitleZH)
	}
	// Output:
	// state_secret 422
	// 本系统不传输国家秘密
}

// A document is recalled before anybody has signed for it, and sent again to others.
func ExampleClient_Recall() {
	ctx, site := context.Background(), start()
	c, clerk := site.as("甲"), client.Person{Name: "李娜", Role: "机要员"}
	sent, err := c.Submit(ctx, &client.Document{Title: "标题", Label: "公开", To: client.To("示范乙")}, client.FileOf("正文.txt", []byte("x")))
	if err != nil {
		fmt.Println(err)
		return
	}
	asked, err := c.Recall(ctx, sent.Document, clerk)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(asked.KindZH)
	again, err := c.Supplement(ctx, sent.Document, []string{site.codes["丙"]})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(again.Document != sent.Document)
	// Output:
	// 撤回
	// true
}

// The evidence of a document is a file that yzverify checks without a node.
func ExampleClient_Evidence() {
	ctx, c := context.Background(), start().as("甲")
	sent, err := c.Submit(ctx, &client.Document{Title: "标题", Label: "公开", To: client.To("示范乙")}, client.FileOf("正文.txt", []byte("x")))
	if err != nil {
		fmt.Println(err)
		return
	}
	dir, err := os.MkdirTemp("", "evidence")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	file, err := os.Create(filepath.Join(dir, "evidence.json"))
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(c.Evidence(ctx, sent.Document, file), file.Close())
	// Output:
	// <nil> <nil>
}

// A submission that survives a crash of the caller: the key is kept with the
// document, and the same call with it is answered with the same document.
func ExampleWithKey() {
	ctx, c := context.Background(), start().as("甲")
	key := client.NewKey() // store it before the first try
	doc := &client.Document{Title: "标题", Label: "公开", To: client.To("示范丙")}
	files := []client.File{client.FileOf("正文.txt", []byte("x"))}
	first, err := c.SubmitWith(ctx, doc, files, client.WithKey(key))
	if err != nil {
		fmt.Println(err)
		return
	}
	again, err := c.SubmitWith(ctx, doc, files, client.WithKey(key))
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(again.Document == first.Document, again.Replayed)
	// Output:
	// true true
}
