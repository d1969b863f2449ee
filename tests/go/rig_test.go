// Package interop drives a running holdfastd with the very Go modules that Nomad's own servers, agents and clients use.
//
// $HOLDFASTD names the program under test. Every wait is on a condition with a deadline.
package interop

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/rpc"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/go-msgpack/v2/codec"
	msgpackrpc "github.com/hashicorp/net-rpc-msgpackrpc/v2"
	"github.com/hashicorp/yamux"
)

const (
	byteRPC       = 0x01
	byteV1        = 0x03
	byteTLS       = 0x04
	byteStreaming = 0x05
	byteV2        = 0x06
)

// The handle of Nomad's structs package: raw strings, times in Go's binary form.
func handle() *codec.MsgpackHandle {
	h := &codec.MsgpackHandle{}
	h.RawToString = true
	h.BasicHandle.TimeNotBuiltin = true
	return h
}

type daemon struct {
	rpc, http string
	cmd       *exec.Cmd
	mu        sync.Mutex
	log       strings.Builder
	config    string
}

var listening = regexp.MustCompile(`listening.* rpc=(\S+) http=(\S+)`)

// start runs holdfastd with these lines of configuration on free ports until the test ends.
func start(t *testing.T, config string) *daemon {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, "holdfastd.toml")
	text := fmt.Sprintf("data_dir = %q\n%s\n", filepath.Join(dir, "data"), config)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	d := &daemon{config: file}
	d.run(t, "127.0.0.1:0", "127.0.0.1:0")
	t.Cleanup(func() { d.stop(syscall.SIGKILL) })
	return d
}

func (d *daemon) run(t *testing.T, rpcAddr, httpAddr string) {
	t.Helper()
	program := os.Getenv("HOLDFASTD")
	if program == "" {
		t.Fatal("HOLDFASTD must name the program under test")
	}
	d.cmd = exec.Command(program, "-c", d.config, "--rpc", rpcAddr, "--http", httpAddr, "--log", "debug")
	errors, err := d.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ready := make(chan struct{})
	go func() {
		lines := bufio.NewScanner(errors)
		lines.Buffer(nil, 1<<20)
		once := sync.Once{}
		for lines.Scan() {
			d.mu.Lock()
			d.log.WriteString(lines.Text() + "\n")
			if m := listening.FindStringSubmatch(lines.Text()); m != nil {
				d.rpc, d.http = m[1], m[2]
			}
			d.mu.Unlock()
			if strings.Contains(lines.Text(), "serving requests") {
				once.Do(func() { close(ready) })
			}
		}
	}()
	select {
	case <-ready:
	case <-time.After(20 * time.Second):
		t.Fatalf("holdfastd did not start:\n%s", d.text())
	}
}

func (d *daemon) text() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.log.String()
}

func (d *daemon) stop(signal syscall.Signal) error {
	_ = d.cmd.Process.Signal(signal)
	return d.cmd.Wait()
}

// dial opens a connection and says its first byte.
func (d *daemon) dial(t *testing.T, first byte) net.Conn {
	t.Helper()
	conn, err := net.DialTimeout("tcp", d.rpc, 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if _, err := conn.Write([]byte{first}); err != nil {
		t.Fatal(err)
	}
	return conn
}

func quiet() *yamux.Config {
	config := yamux.DefaultConfig()
	config.LogOutput = io.Discard
	return config
}

// open opens a v2 session for as long as its user wants it.
func (d *daemon) open() (*yamux.Session, error) {
	conn, err := net.DialTimeout("tcp", d.rpc, time.Second)
	if err != nil {
		return nil, err
	}
	if _, err := conn.Write([]byte{byteV2}); err != nil {
		conn.Close()
		return nil, err
	}
	return yamux.Client(conn, quiet())
}

// session opens a yamux session of either kind.
func (d *daemon) session(t *testing.T, first byte) *yamux.Session {
	t.Helper()
	session, err := yamux.Client(d.dial(t, first), quiet())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { session.Close() })
	return session
}

// stream opens a stream for calls on a v2 session.
func stream(t *testing.T, session *yamux.Session) rpc.ClientCodec {
	t.Helper()
	conn, err := session.Open()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write([]byte{byteRPC}); err != nil {
		t.Fatal(err)
	}
	return clientCodec(conn)
}

func clientCodec(conn io.ReadWriteCloser) rpc.ClientCodec {
	return msgpackrpc.NewCodecFromHandle(true, true, conn, handle())
}

func call(codec rpc.ClientCodec, method string, args, reply any) error {
	return msgpackrpc.CallWithCodec(codec, method, args, reply)
}

// within fails the test when the work is not done in time.
func within(t *testing.T, limit time.Duration, what string, work func() error) {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- work() }()
	select {
	case err := <-done:
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	case <-time.After(limit):
		t.Fatalf("%s: not done in %v", what, limit)
	}
}

// eventually asks again and again until the answer is yes.
func eventually(t *testing.T, limit time.Duration, what string, yes func() bool) {
	t.Helper()
	deadline := time.Now().Add(limit)
	for !yes() {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not in %v", what, limit)
		}
		<-time.After(20 * time.Millisecond)
	}
}
