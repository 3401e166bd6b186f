package notify

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/yizhan-gateway/yizhan/crypto/sm"
)

// The ways to sign a call. Both sign "id.timestamp.body" with HMAC under the bytes
// of the secret, as Standard Webhooks 1.0 has it for the first.
const (
	SHA256 = "sha256" // webhook-signature: v1,base64
	SM3    = "sm3"    // webhook-signature: v1sm3,base64
)

// secretPrefix marks a secret, so that a leak is found by its look.
const secretPrefix = "whsec_"

// secretSize is in bytes; Standard Webhooks asks for 24 to 64.
const secretSize = 32

func newSecret(rand io.Reader) (string, error) {
	b := make([]byte, secretSize)
	if _, err := io.ReadFull(rand, b); err != nil {
		return "", err
	}
	return secretPrefix + base64.StdEncoding.EncodeToString(b), nil
}

// sign gives one signature. Hooks keep no other secrets than those of newSecret.
func sign(algorithm, secret, id string, at time.Time, body []byte) (string, error) {
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(secret, secretPrefix))
	if err != nil {
		return "", fmt.Errorf("notify: a webhook's secret is damaged")
	}
	signed := []byte(id + "." + strconv.FormatInt(at.Unix(), 10) + ".")
	if algorithm == SM3 {
		mac := sm.HMAC(key, signed, body)
		return "v1sm3," + base64.StdEncoding.EncodeToString(mac[:]), nil
	}
	mac := hmac.New(sha256.New, key)
	mac.Write(signed)
	mac.Write(body)
	return "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil)), nil
}

// headers of a call, signed with each of the hook's secrets: two while a new one is
// being introduced.
func headers(h *Hook, id string, at time.Time, body []byte) (http.Header, error) {
	var all []string
	for _, secret := range h.Secrets {
		s, err := sign(h.Algorithm, secret, id, at, body)
		if err != nil {
			return nil, err
		}
		all = append(all, s)
	}
	return http.Header{
		"Content-Type":      {"application/json"},
		"User-Agent":        {"Yizhan-Webhook/1"},
		"Webhook-Id":        {id},
		"Webhook-Timestamp": {strconv.FormatInt(at.Unix(), 10)},
		"Webhook-Signature": {strings.Join(all, " ")},
	}, nil
}
