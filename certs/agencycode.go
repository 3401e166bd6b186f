package certs

import "strings"

// AgencyCode is a 统一社会信用代码 (GB 32100): 18 characters, the last a check
// digit over the others.
type AgencyCode string

const codeAlphabet = "0123456789ABCDEFGHJKLMNPQRTUWXY"

var codeWeights = [17]int{1, 3, 9, 27, 19, 26, 16, 17, 20, 29, 25, 13, 8, 24, 10, 30, 28}

// ParseAgencyCode checks length, alphabet (capitals only) and check digit. The
// error is an [*Error] of code agency_code and says which digit is expected.
func ParseAgencyCode(s string) (AgencyCode, error) {
	if len(s) != 18 {
		return "", fail(codeAgency, "an agency code has 18 characters, this has %d", len(s))
	}
	want, err := checkDigit(s[:17])
	if err != nil {
		return "", err
	}
	if s[17] != want {
		return "", fail(codeAgency, "%s… must end in the check digit %c: look for a slip of the pen", s[:17], want)
	}
	return AgencyCode(s), nil
}

// MakeAgencyCode adds the check digit to the first 17 characters.
func MakeAgencyCode(first17 string) (AgencyCode, error) {
	if len(first17) != 17 {
		return "", fail(codeAgency, "17 characters are expected, these are %d", len(first17))
	}
	digit, err := checkDigit(first17)
	if err != nil {
		return "", err
	}
	return AgencyCode(first17 + string(digit)), nil
}

func checkDigit(first17 string) (byte, error) {
	sum := 0
	for i := range 17 {
		value := strings.IndexByte(codeAlphabet, first17[i])
		if value < 0 {
			return 0, fail(codeAgency, "character %d of an agency code is one of %s", i+1, codeAlphabet)
		}
		sum += value * codeWeights[i]
	}
	return codeAlphabet[(31-sum%31)%31], nil
}

// String gives the 18 characters.
func (c AgencyCode) String() string { return string(c) }
