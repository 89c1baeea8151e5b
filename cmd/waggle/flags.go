package main

import (
	"encoding"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// configFlags are --config and one flag for each key of the configuration.
type configFlags struct {
	path string
	keys []*keyFlag
}

// keyFlag is one configuration key given on the command line. It implements
// pflag.Value; the text is applied once the file has been read.
type keyFlag struct {
	name  string
	help  string
	field []int // index of the field in fileConfig
	typ   reflect.Type
	text  []string
}

// addConfigFlags gives cmd the flags and returns where their values end up.
func addConfigFlags(cmd *cobra.Command) *configFlags {
	f := &configFlags{}
	cmd.Flags().StringVar(&f.path, "config", "", "configuration file, waggle's YAML or mesos-dns' JSON (default "+defaultConfigFile+" if it exists)")
	f.add(cmd, reflect.ValueOf(defaultFileConfig()), "", nil)
	return f
}

func (f *configFlags) add(cmd *cobra.Command, v reflect.Value, prefix string, index []int) {
	for i := range v.NumField() {
		field, at := v.Type().Field(i), append(append([]int(nil), index...), i)
		name := prefix + field.Tag.Get("yaml")
		help, isKey := field.Tag.Lookup("help")
		if !isKey {
			f.add(cmd, v.Field(i), name+".", at)
			continue
		}
		k := &keyFlag{name: name, help: help, field: at, typ: field.Type}
		f.keys = append(f.keys, k)
		flag := cmd.Flags().VarPF(k, name, "", help)
		flag.DefValue = keyText(v.Field(i))
		if field.Type.Kind() == reflect.Bool {
			flag.NoOptDefVal = "true"
		}
	}
}

// load reads the configuration file, lays the flags over it and checks the
// whole.
func (f *configFlags) load() (fileConfig, error) {
	cfg, err := f.read()
	if err == nil {
		err = cfg.check()
	}
	return cfg, err
}

func (f *configFlags) read() (fileConfig, error) {
	cfg, err := readConfig(f.path)
	if err != nil {
		return cfg, err
	}
	for _, k := range f.keys {
		if k.text == nil {
			continue
		}
		v, err := parseKey(k.typ, k.text)
		if err != nil {
			return cfg, err
		}
		reflect.ValueOf(&cfg).Elem().FieldByIndex(k.field).Set(v)
	}
	return cfg, nil
}

// Set takes one use of the flag. Only lists may be given more than once.
func (k *keyFlag) Set(text string) error {
	if _, err := parseKey(k.typ, []string{text}); err != nil {
		return err
	}
	if k.typ.Kind() != reflect.Slice {
		k.text = nil
	}
	k.text = append(k.text, text)
	return nil
}

// String returns what was given.
func (k *keyFlag) String() string { return strings.Join(k.text, ",") }

// Type names the kind of value in help texts.
func (k *keyFlag) Type() string {
	switch {
	case k.typ == reflect.TypeFor[time.Duration]():
		return "duration"
	case k.typ.Kind() == reflect.Slice:
		return "list"
	case k.typ.Kind() == reflect.Bool:
		return "bool"
	case k.typ.Kind() == reflect.Uint16, k.typ.Kind() == reflect.Int:
		return "number"
	}
	return "string"
}

// parseKey reads the text of one key of type t. Lists are split at commas.
func parseKey(t reflect.Type, text []string) (reflect.Value, error) {
	v := reflect.New(t).Elem()
	last := text[len(text)-1]
	if u, ok := v.Addr().Interface().(encoding.TextUnmarshaler); ok {
		return v, u.UnmarshalText([]byte(last))
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(last)
	case reflect.Bool:
		b, err := strconv.ParseBool(last)
		v.SetBool(b)
		return v, err
	case reflect.Int64:
		d, err := time.ParseDuration(last)
		v.SetInt(int64(d))
		return v, err
	case reflect.Int:
		n, err := strconv.Atoi(last)
		v.SetInt(int64(n))
		return v, err
	case reflect.Uint16:
		n, err := strconv.ParseUint(last, 10, 16)
		v.SetUint(n)
		return v, err
	case reflect.Slice:
		list := []string{}
		for _, s := range text {
			if s != "" {
				list = append(list, strings.Split(s, ",")...)
			}
		}
		v.Set(reflect.ValueOf(list))
	default:
		return v, fmt.Errorf("no flag can hold a %s", t)
	}
	return v, nil
}

func keyText(v reflect.Value) string {
	if l, ok := v.Interface().([]string); ok {
		return strings.Join(l, ",")
	}
	return fmt.Sprint(v.Interface())
}

// keyValue is one configuration key and its value as a flag would give it.
type keyValue struct {
	Key   string `json:"key"`
	Value string `json:"value"`
}

// values lists every key of cfg in the order of the file.
func (f *configFlags) values(cfg fileConfig) []keyValue {
	var out []keyValue
	for _, k := range f.keys {
		out = append(out, keyValue{k.name, keyText(reflect.ValueOf(cfg).FieldByIndex(k.field))})
	}
	return out
}

// given reports whether the key was given as a flag.
func (f *configFlags) given(name string) bool {
	for _, k := range f.keys {
		if k.name == name {
			return k.text != nil
		}
	}
	return false
}
