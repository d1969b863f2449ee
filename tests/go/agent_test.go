package interop

import (
	"fmt"
	"net/rpc"
	"os"
	"strings"
	"sync"
	"testing"
	"time"
)

// agent lives as a client agent does: registers, asks for allocations and is made to wait, heartbeats when it is told
// to, registers again when it hears that it is not known, and dials again when its connection ends.
type agent struct {
	d                   *daemon
	version, id, secret string
	mu                  sync.Mutex
	beats, registered   int
	fault               error
	stop                chan struct{}
	ended               sync.WaitGroup
}

func (d *daemon) agent(version, id, secret string) *agent {
	a := &agent{d: d, version: version, id: id, secret: secret, stop: make(chan struct{})}
	a.ended.Add(1)
	go func() {
		defer a.ended.Done()
		for {
			select {
			case <-a.stop:
				return
			default:
				a.live()
			}
			select {
			case <-a.stop:
				return
			case <-time.After(100 * time.Millisecond):
			}
		}
	}()
	return a
}

// live is one connection's life.
func (a *agent) live() {
	session, err := a.d.open()
	if err != nil {
		return
	}
	defer session.Close()
	codecs := make([]rpc.ClientCodec, 2)
	for n := range codecs {
		conn, err := session.Open()
		if err != nil {
			return
		}
		if _, err := conn.Write([]byte{byteRPC}); err != nil {
			return
		}
		codecs[n] = clientCodec(conn)
	}
	token := ""
	if !strings.HasPrefix(a.version, "1.1") {
		token = a.secret
	}
	waits := make(chan error, 1)
	var beat <-chan time.Time = time.After(0)
	known := false
	for {
		select {
		case <-a.stop:
			return
		case <-session.CloseChan():
			return
		case <-waits:
			return
		case <-beat:
		}
		var update nodeUpdate
		if !known {
			n := aNode(a.id, a.secret)
			n["Attributes"] = map[string]string{"nomad.version": a.version}
			if err := call(codecs[0], "Node.Register", register{n, "global"}, &update); err != nil {
				return
			}
			a.note(func() { a.registered++ })
			known = true
			go a.wait(codecs[1], token, waits)
		}
		err := call(codecs[0], "Node.UpdateStatus", heartbeat{a.id, "ready", "global", token}, &update)
		switch {
		case err != nil && strings.Contains(err.Error(), "node not found"):
			return
		case err != nil:
			if !strings.Contains(err.Error(), "EOF") && !strings.Contains(err.Error(), "closed") &&
				!strings.Contains(err.Error(), "leader") && !strings.Contains(err.Error(), "reset") {
				a.note(func() { a.fault = err })
			}
			return
		case update.HeartbeatTTL <= 0 || len(update.Servers) == 0:
			a.note(func() { a.fault = fmt.Errorf("an answer without a TTL or servers: %+v", update) })
			return
		}
		a.note(func() { a.beats++ })
		beat = time.After(update.HeartbeatTTL)
	}
}

// wait asks for allocations for ever, as agents do.
func (a *agent) wait(codec rpc.ClientCodec, token string, ended chan<- error) {
	type allocs struct {
		query
		NodeID, SecretID string
	}
	var answer struct {
		Allocs map[string]uint64
		meta
	}
	for {
		ask := allocs{query{Region: "global", AllowStale: true, AuthToken: token, MinQueryIndex: answer.Index}, a.id, a.secret}
		if err := call(codec, "Node.GetClientAllocs", ask, &answer); err != nil {
			ended <- err
			return
		}
		if answer.Index == 0 {
			a.note(func() { a.fault = fmt.Errorf("an index of 0 would make an agent ask without pause") })
		}
	}
}

func (a *agent) note(what func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	what()
}

func (a *agent) end() {
	close(a.stop)
	a.ended.Wait()
}

// statusOf asks for a node's status, "" when that cannot be had.
func (d *daemon) statusOf(id string) string {
	session, err := d.open()
	if err != nil {
		return ""
	}
	defer session.Close()
	conn, err := session.Open()
	if err != nil {
		return ""
	}
	_, _ = conn.Write([]byte{byteRPC})
	type getNode struct {
		query
		NodeID string
	}
	var reply struct{ Node struct{ Status string } }
	if err := call(clientCodec(conn), "Node.GetNode", getNode{query{Region: "global"}, id}, &reply); err != nil {
		return ""
	}
	return reply.Node.Status
}

// Agents of both lines become ready and stay so, through a restart of the server; one that stops is down after its TTL
// and grace, and up again when it comes back. HOLDFAST_SOAK makes it longer than the 6 seconds of a normal run.
func TestAgentsStayReady(t *testing.T) {
	soak := 6 * time.Second
	config := "[heartbeat]\nmin_ttl = \"500ms\"\ngrace = \"1s\"\n"
	if text := os.Getenv("HOLDFAST_SOAK"); text != "" {
		var err error
		if soak, err = time.ParseDuration(text); err != nil {
			t.Fatal(err)
		}
		config = ""
	}
	d := start(t, config)
	agents := []*agent{d.agent("1.1.2", idA, secretA), d.agent("2.0.5", idB, secretB)}
	for _, a := range agents {
		eventually(t, 15*time.Second, a.version+" becomes ready", func() bool { return d.statusOf(a.id) == "ready" })
	}
	half, whole := time.After(soak/2), time.After(soak)
	look := time.NewTicker(200 * time.Millisecond)
	defer look.Stop()
	lives := true
	for lives {
		select {
		case <-look.C:
			for _, a := range agents {
				if status := d.statusOf(a.id); status != "ready" {
					t.Fatalf("%s: %q", a.version, status)
				}
			}
		case <-half:
			rpcAddr, httpAddr := d.rpc, d.http
			if err := d.stop(15); err != nil {
				t.Fatalf("the server ends in order: %v", err)
			}
			d.run(t, rpcAddr, httpAddr)
		case <-whole:
			lives = false
		}
	}
	for _, a := range agents {
		a.note(func() {
			t.Logf("%s: %d heartbeats, registered %d times in %v", a.version, a.beats, a.registered, soak)
			if a.fault != nil || a.beats < 2 {
				t.Errorf("%s: %v", a.version, a.fault)
			}
		})
	}
	agents[0].end()
	eventually(t, 60*time.Second, "the one that stopped is down", func() bool { return d.statusOf(idA) == "down" })
	if status := d.statusOf(idB); status != "ready" {
		t.Fatalf("the other one is %q", status)
	}
	again := d.agent("1.1.2", idA, secretA)
	eventually(t, 15*time.Second, "it comes back", func() bool { return d.statusOf(idA) == "ready" })
	again.end()
	agents[1].end()
}
