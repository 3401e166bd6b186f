//go:build !cgo

package bench

import "context"

func wrappedMode(context.Context, *runner, string) ([]Result, error) {
	return notMeasured("this program was built without PKCS#11 (CGO_ENABLED=0)"), nil
}
