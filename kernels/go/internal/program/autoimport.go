package program

import "strings"

// Packages of the standard library that a cell may use without importing them. Of two with the
// same name the more common one counts.
var autoImports = byName(`
archive/tar archive/zip bufio bytes cmp compress/gzip compress/zlib container/heap container/list
container/ring context crypto/aes crypto/cipher crypto/ecdsa crypto/ed25519 crypto/elliptic
crypto/hmac crypto/md5 crypto/rsa crypto/sha1 crypto/sha256 crypto/sha512 crypto/tls crypto/x509
database/sql debug/buildinfo embed encoding/base32 encoding/base64 encoding/binary encoding/csv
encoding/gob encoding/hex encoding/json encoding/pem encoding/xml errors expvar flag fmt go/ast
go/format go/parser go/token hash hash/adler32 hash/crc32 hash/crc64 hash/fnv hash/maphash html
image image/color image/draw image/gif image/jpeg image/png io io/fs iter log log/slog maps math
math/big math/bits math/cmplx math/rand mime mime/multipart net net/http net/http/httptest net/mail
net/netip net/smtp net/textproto net/url os os/exec os/signal os/user path path/filepath reflect
regexp runtime runtime/debug slices sort strconv strings sync sync/atomic syscall testing testing/fstest
testing/iotest testing/quick text/scanner text/tabwriter text/template time unicode unicode/utf16
unicode/utf8 unique unsafe weak`)

func byName(list string) map[string]string {
	table := map[string]string{}
	for _, path := range strings.Fields(list) {
		table[path[strings.LastIndexByte(path, '/')+1:]] = path
	}
	return table
}
