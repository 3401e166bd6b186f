package strictjson

import "testing"

// BenchmarkUnmarshal reads an object with a list, a time, bytes and a raw value.
func BenchmarkUnmarshal(b *testing.B) {
	data := []byte(`{"type":"yizhan-envelope","v":1,"name":"关于印发《办法》的通知","count":12345678,"data":"AAECAwQFBgcICQoLDA0ODw==","list":[{"a":"91110000600037341L"},{"a":"91350100M000100Y43"}],"at":"2026-11-23T08:05:09.123Z","any":{"label":"内部","urgency":"平件","created":"2026-11-23T08:05:09.123Z"}}`)
	b.ReportAllocs()
	for b.Loop() {
		var o object
		if err := Unmarshal(data, &o); err != nil {
			b.Fatal(err)
		}
	}
}
