package config

import "github.com/pelletier/go-toml/v2"

// Encode writes a configuration as Load reads it, with the comments of its
// fields' comment tags.
func Encode(v any) ([]byte, error) { return toml.Marshal(v) }
