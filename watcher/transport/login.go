package transport

import (
	"context"
	"fmt"
	"net/http"
	"time"
)

// login keeps the token that a service account was given, until it expires or is
// refused. Callers that need one at the same time share one login. It is safe for
// concurrent use.
type login struct {
	files *files
	by    http.RoundTripper
	done  func(error) // called after each login

	// slot guards the following; a channel, so that waiting for it can be given up.
	slot    chan struct{}
	account *account  // of the token
	header  secret    // empty for none
	until   time.Time // renewed then; zero for when it is refused
	failed  error     // of the last login; nil where it went well
}

func newLogin(f *files, by http.RoundTripper, done func(error)) *login {
	return &login{files: f, by: by, done: done, slot: make(chan struct{}, 1)}
}

// get returns the header to send instead of refused, which is empty for the first.
func (l *login) get(ctx context.Context, refused secret) (secret, error) {
	account, err := l.files.account.get()
	if err != nil {
		return secret{}, err
	}
	waited := true
	select {
	case l.slot <- struct{}{}:
		waited = false
	default:
	}
	if waited {
		select {
		case l.slot <- struct{}{}:
		case <-ctx.Done():
			return secret{}, ctx.Err()
		}
	}
	defer func() { <-l.slot }()
	if waited && l.failed != nil {
		return secret{}, l.failed // the one waited for, for all who did
	}
	good := l.header.reveal() != "" && l.header.reveal() != refused.reveal() && l.account == account && (l.until.IsZero() || time.Now().Before(l.until))
	if good {
		return l.header, nil
	}
	header, until, err := l.ask(ctx, account)
	if ctx.Err() != nil {
		err, l.failed = ctx.Err(), nil // which says nothing to others
		return secret{}, err
	}
	l.done(err)
	l.account, l.header, l.until, l.failed = account, header, until, err
	return header, err
}

// ask logs in. The token is renewed a minute before it expires, or sooner if it
// lives for less than ten.
func (l *login) ask(ctx context.Context, a *account) (header secret, until time.Time, err error) {
	wrong := func(err error) (secret, time.Time, error) {
		return secret{}, time.Time{}, fmt.Errorf("log in at %s as %s: %w", a.endpoint.Host, a.uid, err)
	}
	now := time.Now()
	token, err := a.ask(ctx, l.by, l.files.secrets.add)
	if err != nil {
		return wrong(err)
	}
	if header, err = l.files.token(TokenDCOS, token); err != nil {
		return wrong(fmt.Errorf("the token %w", err))
	}
	if until = expiry(token); !until.IsZero() {
		until = until.Add(-min(time.Minute, until.Sub(now)/10))
	}
	return header, until, nil
}
