// Package marathon follows Marathon: its apps and pods by /v2/apps and
// /v2/pods/::status, and what changes by /v2/events. An event says only that
// something has changed: what it is now is read again. It speaks no other
// scheduler's API.
package marathon
