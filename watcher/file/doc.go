// Package file is the Source of what no scheduler starts: services and tasks
// written down in YAML or JSON files, read again whenever these change. It
// knows no scheduler's API. docs/static-services.md is the format.
package file
