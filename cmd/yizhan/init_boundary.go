package main

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
)

// profileBoundary makes one of the pair of nodes on either side of a gate.
const profileBoundary = "boundary"

// boundaryFlags are those of init that say what a node at a boundary faces.
type boundaryFlags struct{ profile, beyond, spool string }

// check refuses what a node at a boundary must not have: it holds no agency's key and
// is reached by no agency's system, so that whoever takes it over reads nothing.
func (f *initFlags) checkProfile(restSet bool) error {
	switch b := f.boundary; {
	case b.profile == "" && (b.beyond != "" || b.spool != ""):
		return usage("--beyond and --spool belong to --profile %s", profileBoundary)
	case b.profile == "":
		return nil
	case b.profile != profileBoundary:
		return usage("--profile %q: there is %s", b.profile, profileBoundary)
	case b.beyond == "" || b.beyond == f.node:
		return usage("--beyond NODE is needed: the node on the other side of the gate")
	case len(f.agencies) > 0:
		return usage("--agency: a node at a boundary serves no agency; agencies belong to a node behind it")
	case restSet:
		return usage("--rest-listen: a node at a boundary serves no agency's system")
	}
	f.rest = ""
	return nil
}

// ferries is what config.toml says of the gate. Both sides give the link one name.
func (f *initFlags) ferries() ([]ferrySettings, error) {
	if f.boundary.profile == "" {
		return nil, nil
	}
	s := ferrySettings{Link: f.boundaryLink()}
	if f.boundary.spool != "" {
		var err error
		if s.Spool, err = filepath.Abs(f.boundary.spool); err != nil {
			return nil, err
		}
	}
	return []ferrySettings{s}, nil
}

func (f *initFlags) boundaryLink() string {
	two := []string{f.node, f.boundary.beyond}
	slices.Sort(two)
	return strings.Join(two, "-")
}

// boundarySteps are what comes after init, for whoever keeps the directory: words
// for a person, who knows which nodes stand behind this one.
func (f *initFlags) boundarySteps(request string) []string {
	if f.boundary.profile == "" {
		return []string{"yizhan ca admit CA-DIR " + request}
	}
	link := f.boundaryLink()
	two := []string{f.node, f.boundary.beyond}
	slices.Sort(two)
	return []string{
		"yizhan ca admit CA-DIR " + request,
		fmt.Sprintf("yizhan ca link CA-DIR %s %s --kind ferry --name %s --ceiling LABEL", two[0], two[1], link),
		fmt.Sprintf("yizhan ca link CA-DIR INNER-NODE %s --dialer INNER-NODE --ceiling LABEL", f.node),
		fmt.Sprintf("yizhan ca route CA-DIR INNER-NODE FAR-NODE %s", f.node),
		fmt.Sprintf("yizhan ca route CA-DIR %s FAR-NODE %s", f.node, f.boundary.beyond),
		"yizhan ca publish CA-DIR",
	}
}
