//go:build !race

package mesos

const raceEnabled = false
