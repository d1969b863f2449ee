package interop

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

type variable struct {
	Namespace, Path          string
	Items                    map[string]string
	CreateIndex, ModifyIndex uint64
}

type variableApply struct {
	Op     string
	Var    *variable
	Region string
}

type variableApplied struct {
	Result string
	Index  uint64
}

type variableRead struct {
	Path, Region string
}

type variableFound struct {
	Data *variable
}

// freePorts gives ports that were free a moment ago.
func freePorts(t *testing.T, count int) []string {
	t.Helper()
	var addresses []string
	for range count {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		addresses = append(addresses, listener.Addr().String())
		defer listener.Close()
	}
	return addresses
}

// three starts three servers that found a cluster, with the addresses that they keep.
func three(t *testing.T) []*daemon {
	t.Helper()
	ports := freePorts(t, 6)
	var all []*daemon
	for nth := range 3 {
		dir := t.TempDir()
		file := filepath.Join(dir, "holdfastd.toml")
		text := fmt.Sprintf("name = \"s%d\"\ndata_dir = %q\n[cluster]\nbootstrap_expect = 3\njoin = [%q, %q, %q]\n"+
			"[limits]\nrpc_max_conns_per_client = 0\n", nth, filepath.Join(dir, "data"), ports[0], ports[1], ports[2])
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		all = append(all, &daemon{config: file})
	}
	var started sync.WaitGroup
	for nth, d := range all {
		started.Add(1)
		go func() {
			defer started.Done()
			d.run(t, ports[nth], ports[3+nth])
		}()
		t.Cleanup(func() { d.stop(syscall.SIGKILL) })
	}
	started.Wait()
	return all
}

// plain makes calls as any Go program does: one stream, a new one after an error.
type plain struct {
	d      *daemon
	closer func()
	call   func(method string, args, reply any) error
}

func (p *plain) do(method string, args, reply any) error {
	if p.call == nil {
		session, err := p.d.open()
		if err != nil {
			return err
		}
		conn, err := session.Open()
		if err != nil {
			session.Close()
			return err
		}
		if _, err := conn.Write([]byte{byteRPC}); err != nil {
			session.Close()
			return err
		}
		codec := clientCodec(conn)
		p.closer = func() { session.Close() }
		p.call = func(method string, args, reply any) error { return call(codec, method, args, reply) }
	}
	err := p.call(method, args, reply)
	if err != nil {
		p.closer()
		p.call = nil
	}
	return err
}

func (d *daemon) leader(t *testing.T) string {
	p := &plain{d: d}
	var leader string
	if p.do("Status.Leader", map[string]any{"Region": "global", "AllowStale": true}, &leader) != nil {
		return ""
	}
	return leader
}

// R2.31: appends of a plain Go client through a follower while leaders are killed and stopped: none is lost, none
// doubled, none failed, none unknown. $HOLDFAST_APPENDS and $HOLDFAST_KILL_EVERY make it longer; it goes on until four
// leaders were harmed.
func TestAppendsThroughAFollowerSurviveLeaders(t *testing.T) {
	appends, every := 2_000, 500*time.Millisecond
	if text := os.Getenv("HOLDFAST_APPENDS"); text != "" {
		appends, _ = strconv.Atoi(text)
	}
	if text := os.Getenv("HOLDFAST_KILL_EVERY"); text != "" {
		every, _ = time.ParseDuration(text)
	}
	servers := three(t)
	eventually(t, 30*time.Second, "a leader", func() bool { return servers[0].leader(t) != "" })
	home := servers[0]
	var next, harmed atomic.Int64
	var mu sync.Mutex
	var failures []string
	var writers sync.WaitGroup
	for range 8 {
		writers.Add(1)
		go func() {
			defer writers.Done()
			p := &plain{d: home}
			for {
				nth := next.Add(1)
				if nth > int64(appends) && harmed.Load() >= 4 {
					next.Add(-1)
					return
				}
				path := fmt.Sprintf("append/%d", nth)
				write := variableApply{Op: "set", Region: "global", Var: &variable{Path: path, Items: map[string]string{"n": path}}}
				var reply variableApplied
				if err := p.do("Variables.Apply", write, &reply); err != nil || reply.Result != "ok" {
					mu.Lock()
					failures = append(failures, fmt.Sprintf("%s: %v %q", path, err, reply.Result))
					mu.Unlock()
				}
			}
		}()
	}
	ended := make(chan struct{})
	go func() { writers.Wait(); close(ended) }()
harm:
	for {
		select {
		case <-ended:
			break harm
		case <-time.After(every):
		}
		leader := home.leader(t)
		for _, d := range servers[1:] {
			if d.rpc != leader {
				continue
			}
			nth := harmed.Add(1)
			rpc, http := d.rpc, d.http
			if nth%3 == 2 {
				// Stopped for a while, not dead.
				_ = d.cmd.Process.Signal(syscall.SIGSTOP)
				<-time.After(1500 * time.Millisecond)
				_ = d.cmd.Process.Signal(syscall.SIGCONT)
				continue
			}
			signal := syscall.SIGKILL
			if nth%3 == 0 {
				signal = syscall.SIGTERM
			}
			_ = d.stop(signal)
			d.run(t, rpc, http)
		}
		if leader == home.rpc {
			// The clients' own server is not to die: somebody else leads then.
			var reply any
			_ = (&plain{d: home}).do("Operator.TransferLeadershipToPeer", map[string]any{"Region": "global", "Address": servers[1].rpc}, &reply)
		}
	}
	if len(failures) > 0 {
		t.Fatalf("%d of %d failed, the first: %s", len(failures), next.Load(), failures[0])
	}
	p := &plain{d: home}
	lost, doubled := 0, 0
	for nth := int64(1); nth <= next.Load(); nth++ {
		var found variableFound
		if err := p.do("Variables.Read", variableRead{Path: fmt.Sprintf("append/%d", nth), Region: "global"}, &found); err != nil {
			t.Fatal(err)
		}
		switch {
		case found.Data == nil:
			lost++
		case found.Data.CreateIndex != found.Data.ModifyIndex:
			doubled++
		}
	}
	t.Logf("appends=%d leaders_harmed=%d lost=%d doubled=%d failed=0 unknown=0", next.Load(), harmed.Load(), lost, doubled)
	if lost+doubled > 0 {
		t.Fatalf("lost=%d doubled=%d", lost, doubled)
	}
}
