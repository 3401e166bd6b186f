package rest

import (
	"cmp"
	"context"
	"slices"

	"github.com/yizhan-gateway/yizhan/certs"
)

// AgencyLine is one agency of the directory.
type AgencyLine struct {
	Code    string   `json:"code" example:"11520000000000002X"`
	Name    string   `json:"name" example:"示范单位乙"`
	Aliases []string `json:"aliases"`
	Parent  string   `json:"parent,omitempty" doc:"Code of the agency above it"`
	Branch  string   `json:"branch,omitempty" doc:"party 党委, congress 人大, government 政府, cppcc 政协"`
	Groups  []string `json:"groups"`
	Node    string   `json:"node" example:"n2"`
	Zone    string   `json:"zone" example:"政务外网"`
}

// AgencyList is a page of agencies, of one version of the directory.
type AgencyList struct {
	Items     []AgencyLine `json:"items"`
	Next      string       `json:"next,omitempty" doc:"Ask again with this as after"`
	Version   uint64       `json:"version" doc:"Of the directory in force"`
	Unchanged bool         `json:"unchanged,omitempty" doc:"The version is the one of since: items are left out"`
}

// GroupLine is a group of agencies.
type GroupLine struct {
	Name    string `json:"name" example:"各县区政府"`
	Members int    `json:"members"`
}

type agencyQuery struct {
	Q      string `query:"q" maxLength:"200" doc:"Part of a code, a name or an alias"`
	Parent string `query:"parent" maxLength:"18" doc:"Those directly below this agency"`
	Group  string `query:"group" maxLength:"100" doc:"Members of this group"`
	Since  uint64 `query:"since" doc:"The version that the caller has: when it is still in force, items are left out"`
	After  string `query:"after" maxLength:"18" doc:"Continue behind this code"`
	Limit  int    `query:"limit" minimum:"1" maximum:"500" default:"50"`
}

func (s *Server) agencies(_ context.Context, in *agencyQuery) (*body[AgencyList], error) {
	d := s.c.Node.Directory()
	out := &body[AgencyList]{AgencyList{Items: []AgencyLine{}, Version: d.Version()}}
	if in.Since == out.Body.Version {
		out.Body.Unchanged = true
		return out, nil
	}
	for _, a := range d.Search(in.Q, -1) {
		switch {
		case a.Code <= in.After || in.Parent != "" && a.Parent != in.Parent || in.Group != "" && !slices.Contains(a.Groups, in.Group):
			continue
		case len(out.Body.Items) == in.Limit:
			out.Body.Next = out.Body.Items[in.Limit-1].Code
			return out, nil
		}
		out.Body.Items = append(out.Body.Items, agencyLine(d, a))
	}
	return out, nil
}

func agencyLine(d *certs.Directory, a *certs.Agency) AgencyLine {
	line := AgencyLine{
		Code: a.Code, Name: a.Name, Aliases: append([]string{}, a.Aliases...), Parent: a.Parent, Branch: a.Branch,
		Groups: append([]string{}, a.Groups...), Node: a.Node,
	}
	if n, ok := d.Node(a.Node); ok {
		line.Zone = n.Zone
	}
	return line
}

func (s *Server) groups(context.Context, *struct{}) (*body[list[GroupLine]], error) {
	members := map[string]int{}
	for _, a := range s.c.Node.Directory().Agencies() {
		for _, g := range a.Groups {
			members[g]++
		}
	}
	out := &body[list[GroupLine]]{list[GroupLine]{Items: []GroupLine{}}}
	for name, n := range members {
		out.Body.Items = append(out.Body.Items, GroupLine{name, n})
	}
	slices.SortFunc(out.Body.Items, func(a, b GroupLine) int { return cmp.Compare(a.Name, b.Name) })
	return out, nil
}
