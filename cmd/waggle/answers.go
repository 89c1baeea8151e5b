package main

import (
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"waggle/ebpf/answers"
)

// newAnswers returns what has the kernel give answers, nil where it is not to.
func newAnswers(cfg dnsConfig, log *zap.Logger, reg prometheus.Registerer) *answers.Answers {
	if cfg.Kernel == 0 {
		return nil
	}
	return answers.New(answers.Config{Most: cfg.Kernel}, log, reg)
}
