package zk

import (
	"encoding/binary"
	"errors"
	"math"
)

var errProtobuf = errors.New("not a protobuf message")

// The field numbers of mesos.MasterInfo and mesos.Address.
const (
	infoID, infoIP, infoPort, infoPID, infoHostname, infoAddress = 1, 2, 3, 4, 5, 7

	addressHostname, addressIP, addressPort = 1, 2, 3
)

// parseMasterInfo reads the protobuf form: six fields of one message, for which
// no library is needed.
func parseMasterInfo(data []byte) (masterInfo, error) {
	var i masterInfo
	err := fields(data, func(number int, n uint64, b []byte) error {
		switch number {
		case infoID:
			i.ID = string(b)
		case infoIP:
			i.IP = uint32(n)
		case infoPort:
			i.Port = port(n)
		case infoPID:
			i.PID = string(b)
		case infoHostname:
			i.Hostname = string(b)
		case infoAddress:
			return fields(b, func(number int, n uint64, b []byte) error {
				switch number {
				case addressHostname:
					i.Address.Hostname = string(b)
				case addressIP:
					i.Address.IP = string(b)
				case addressPort:
					i.Address.Port = port(n)
				}
				return nil
			})
		}
		return nil
	})
	return i, err
}

// port is 0 for what is none.
func port(n uint64) uint16 {
	if n > math.MaxUint16 {
		return 0
	}
	return uint16(n)
}

// fields calls f for each field: with its number, and n for a varint or b for
// bytes.
func fields(data []byte, f func(number int, n uint64, b []byte) error) error {
	for len(data) > 0 {
		tag, size := binary.Uvarint(data)
		if size <= 0 || tag>>3 == 0 || tag>>3 > 1<<29-1 {
			return errProtobuf
		}
		data = data[size:]
		var n uint64
		var b []byte
		switch tag & 7 {
		case 0:
			if n, size = binary.Uvarint(data); size <= 0 {
				return errProtobuf
			}
		case 1:
			size = 8
		case 2:
			length, head := binary.Uvarint(data)
			if head <= 0 || length > uint64(len(data)-head) {
				return errProtobuf
			}
			size = head + int(length)
			b = data[head:size]
		case 5:
			size = 4
		default: // groups, which the message has none of
			return errProtobuf
		}
		if size > len(data) {
			return errProtobuf
		}
		data = data[size:]
		if err := f(int(tag>>3), n, b); err != nil {
			return err
		}
	}
	return nil
}
