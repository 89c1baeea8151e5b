package main

import (
	"github.com/spf13/cobra"

	"waggle/internal/devcluster"
)

// newHello is the little web server that examples/hello.json runs.
func newHello() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "hello",
		Short:   "Serve a page that says which task answered",
		Example: `  exec "$WAGGLE" dev hello --listen :$PORT0`,
		Args:    usageArgs(cobra.NoArgs),
	}
	listen := cmd.Flags().String("listen", "127.0.0.1:0", "address to serve HTTP on")
	linger := cmd.Flags().Duration("linger", 0, "how long to go on serving once told to end")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return devcluster.Hello(cmd.Context(), *listen, *linger, cmd.OutOrStdout())
	}
	return cmd
}
