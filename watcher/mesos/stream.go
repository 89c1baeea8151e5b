package mesos

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// handler receives the objects of a document one by one, each as JSON that is
// valid only during the call and not checked yet. Objects that no function
// wants are skipped unread, however large.
type handler struct {
	kind     func(string)          // the document's "type"
	picture  func()                // a complete picture begins
	interval func(seconds float64) // between heartbeats

	task, agent, framework   func(json.RawMessage)
	recovered                func(json.RawMessage)
	updated                  func(json.RawMessage)
	agentGone, frameworkGone func(json.RawMessage)

	wrong func(error) // one value is not what it should be
	lost  func(error) // neither is an object or a list, and what it held is lost
}

// handlerInto returns a handler that applies what is told of tasks, agents and
// frameworks to *w as it is at that time; before there is a world they change
// nothing. unknown is told of updates for tasks that nobody described. The
// caller fills in the other functions.
func handlerInto(w **world, unknown func(error)) *handler {
	ready := func(f func(*world, json.RawMessage)) func(json.RawMessage) {
		return func(raw json.RawMessage) {
			if *w != nil {
				f(*w, raw)
			}
		}
	}
	return &handler{
		task: ready((*world).addTask), agent: ready((*world).addAgent), framework: ready((*world).addFramework),
		recovered: ready((*world).addRecovered),
		agentGone: ready((*world).removeAgent), frameworkGone: ready((*world).removeFramework),
		updated: ready(func(w *world, raw json.RawMessage) {
			if err := w.updateTask(raw); err != nil {
				unknown(err)
			}
		}),
		wrong: func(err error) {
			if *w != nil {
				(*w).wrong("", err)
			}
		},
	}
}

// visit is what to do with the value of a key: exactly one of object, items,
// each and value is set.
type visit struct {
	object map[string]visit      // walk into it
	items  *visit                // do this with every element
	each   func(json.RawMessage) // call for every element
	value  func(json.RawMessage) // call with the value

	before, after func() // called around walking object
}

// member is a payload of which only the value of key is wanted.
func member(key string, f func(json.RawMessage)) visit {
	return visit{object: map[string]visit{key: {value: f}}}
}

// plan returns what of an operator API document is read: an event, a GET_STATE
// answer, or an agent's own.
func (h *handler) plan() map[string]visit {
	state := visit{before: h.picture, object: map[string]visit{
		"get_tasks": {object: map[string]visit{
			"tasks": {each: h.task}, "launched_tasks": {each: h.task}, "unreachable_tasks": {each: h.task},
		}},
		"get_agents":     {object: map[string]visit{"agents": {each: h.agent}, "recovered_agents": {each: h.recovered}}},
		"get_frameworks": {object: map[string]visit{"frameworks": {each: h.framework}}},
	}}
	return map[string]visit{
		"type":      {value: decoded(h, "type", h.kind)},
		"get_state": state,
		"subscribed": {object: map[string]visit{
			"heartbeat_interval_seconds": {value: decoded(h, "subscribed.heartbeat_interval_seconds", h.interval)},
			"get_state":                  state,
		}},
		"task_added":        member("task", h.task),
		"task_updated":      {value: h.updated},
		"agent_added":       member("agent", h.agent),
		"agent_removed":     member("agent_id", h.agentGone),
		"framework_added":   member("framework", h.framework),
		"framework_updated": member("framework", h.framework),
		"framework_removed": member("framework_info", h.frameworkGone),
	}
}

func decoded[T any](h *handler, field string, f func(T)) func(json.RawMessage) {
	return func(raw json.RawMessage) {
		var v T
		if err := readInto(raw, &v); err != nil {
			h.wrong(&fieldError{field, string(raw), err})
			return
		}
		f(v)
	}
}

// read takes the document that s holds by plan, which is h's. What is of another
// kind than planned costs only itself; an error means that the document is not
// JSON from there on.
func (h *handler) read(s *scanner, plan map[string]visit) error {
	if c, err := s.peek(); err != nil || c != '{' {
		return cmp.Or(noEOF(err), fmt.Errorf("%q where an object should begin", c))
	}
	if err := h.walk(s, "", visit{object: plan}); err != nil {
		return err
	}
	if _, err := s.peek(); err == nil {
		return errors.New("more than one document")
	} else if err != io.EOF {
		return err
	}
	return nil
}

func (h *handler) walk(s *scanner, path string, v visit) error {
	open := byte('{')
	if v.each != nil || v.items != nil {
		open = '['
	}
	c, err := s.peek()
	switch {
	case err != nil:
		return within(path, noEOF(err))
	case v.value != nil:
		return h.hand(s, path, v.value)
	case c != open:
		return h.hand(s, path, func(raw json.RawMessage) {
			if kind := kindOf(raw); kind != "null" { // which is as good as absent
				h.lost(&fieldError{path, kind, fmt.Errorf("%s where %s should be", kind, kindOf([]byte{open}))})
			}
		})
	case v.each != nil:
		return within(path, s.elements(func() error { return h.hand(s, path, v.each) }))
	case v.items != nil:
		return within(path, s.elements(func() error { return h.walk(s, path, *v.items) }))
	}
	if v.before != nil {
		v.before()
	}
	if v.after != nil {
		defer v.after()
	}
	return within(path, s.members(func(key []byte) error {
		v, ok := v.object[string(key)]
		if !ok {
			return s.skip()
		}
		below := string(key)
		if path != "" {
			below = path + "." + below
		}
		return h.walk(s, below, v)
	}))
}

// hand takes the next value and calls f with it.
func (h *handler) hand(s *scanner, path string, f func(json.RawMessage)) error {
	raw, err := s.next()
	switch err {
	case nil:
		f(raw)
	case errObjectSize:
		h.wrong(&fieldError{path, "", err})
	default:
		return within(path, err)
	}
	return nil
}

// within says where in the document err came up, once.
func within(path string, err error) error {
	var f *fieldError
	if err == nil || errors.As(err, &f) || path == "" {
		return err
	}
	return &fieldError{path, "", err}
}
