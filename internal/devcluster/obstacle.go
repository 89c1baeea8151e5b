package devcluster

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
)

// obstacleHere says why a cannot run on this machine, or nothing if it can: an
// app runs here as a local process if it has a cmd (or args) whose program
// exists; what an image holds is out of reach.
func obstacleHere(a *App) string {
	if a.GPUs > 0 {
		if found, _ := filepath.Glob("/dev/nvidia[0-9]*"); len(found) == 0 {
			return fmt.Sprintf("needs %g GPU, and this machine has none", a.GPUs)
		}
	}
	if a.Cmd == "" && a.image() != "" {
		return fmt.Sprintf("needs the command of docker image %s: images are not pulled here, only an app with a cmd of its own runs", a.image())
	}
	program := firstProgram(a)
	if program == "" || exec.Command("/bin/sh", "-c", `command -v "$1"`, "sh", program).Run() == nil {
		return ""
	}
	if a.image() != "" {
		return fmt.Sprintf("needs the program %s, which this machine does not have (docker image %s is not pulled)", program, a.image())
	}
	return fmt.Sprintf("needs the program %s, which this machine does not have", program)
}

// firstProgram is the first program a runs, or nothing where only a shell can
// tell which that is.
func firstProgram(a *App) string {
	words := a.Args
	if a.Cmd != "" {
		words = strings.Fields(a.Cmd)
	}
	assignment := regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*=`)
	for len(words) > 1 && a.Cmd != "" && (words[0] == "exec" || assignment.MatchString(words[0])) {
		words = words[1:]
	}
	if len(words) == 0 || !regexp.MustCompile(`^(/[\w./+-]+|[\w.+-]+)$`).MatchString(words[0]) {
		return ""
	}
	return words[0]
}

// note says how a is run otherwise than on a real cluster; empty if it is not.
func (a *App) note() string {
	var out []string
	if a.image() != "" {
		out = append(out, fmt.Sprintf("a local process: image %s not pulled", a.image()))
	}
	if a.mode() != modeHost {
		out = append(out, a.mode()+" network emulated in the host's")
	}
	return strings.Join(out, ", ")
}
