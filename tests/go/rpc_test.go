package interop

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/rpc"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-msgpack/v2/codec"
	"github.com/hashicorp/nomad/api"
	"github.com/hashicorp/yamux"
)

type query struct {
	Region        string
	MinQueryIndex uint64
	MaxQueryTime  time.Duration
	AllowStale    bool
	AuthToken     string
	Prefix        string
}

type meta struct {
	Index       uint64
	LastContact time.Duration
	KnownLeader bool
}

type node map[string]any

func aNode(id, secret string) node {
	return node{
		"ID": id, "SecretID": secret, "Datacenter": "dc1", "Name": "go", "Status": "initializing",
		"HTTPAddr": "127.0.0.1:4646", "Attributes": map[string]string{"nomad.version": "2.0.5"},
	}
}

type register struct {
	Node   node
	Region string
}

type nodeUpdate struct {
	HeartbeatTTL   time.Duration
	Index          uint64
	LeaderRPCAddr  string
	NumNodes       int32
	Servers        []struct{ RPCAdvertiseAddr, Datacenter string }
	SignedIdentity *string
}

type heartbeat struct {
	NodeID, Status, Region, AuthToken string
}

const (
	idA     = "aaaaaaaa-0000-4000-8000-000000000001"
	secretA = "aaaaaaaa-0000-4000-8000-00000000000a"
	idB     = "bbbbbbbb-0000-4000-8000-000000000002"
	secretB = "bbbbbbbb-0000-4000-8000-00000000000b"
)

// R1.17, R1.34, R1.38: the three ways to make calls.
func TestCallsOnEveryFirstByte(t *testing.T) {
	d := start(t, "")
	codecs := map[string]rpc.ClientCodec{
		"0x01": clientCodec(d.dial(t, byteRPC)),
		"0x06": stream(t, d.session(t, byteV2)),
	}
	v1, err := d.session(t, byteV1).Open()
	if err != nil {
		t.Fatal(err)
	}
	codecs["0x03"] = clientCodec(v1)
	for name, c := range codecs {
		within(t, 5*time.Second, name, func() error {
			for range 3 {
				if err := call(c, "Status.Ping", struct{}{}, &struct{}{}); err != nil {
					return err
				}
			}
			var leader string
			if err := call(c, "Status.Leader", query{Region: "global"}, &leader); err != nil || leader != d.rpc {
				return fmt.Errorf("leader %q: %v", leader, err)
			}
			return nil
		})
	}
}

// R1.34: streams run side by side. R1.43: one stream serves many calls, in order.
func TestStreamsRunSideBySide(t *testing.T) {
	d := start(t, "")
	session := d.session(t, byteV2)
	slow := stream(t, session)
	parked := make(chan error, 1)
	began := time.Now()
	go func() {
		parked <- call(slow, "Node.List", query{Region: "global", MinQueryIndex: 1 << 40, MaxQueryTime: 2 * time.Second}, &meta{})
	}()
	var all sync.WaitGroup
	failures := make(chan error, 64)
	for range 64 {
		c := stream(t, session)
		all.Add(1)
		go func() {
			defer all.Done()
			for range 200 {
				if err := call(c, "Status.Ping", struct{}{}, &struct{}{}); err != nil {
					failures <- err
					return
				}
			}
		}()
	}
	all.Wait()
	select {
	case err := <-failures:
		t.Fatal(err)
	case err := <-parked:
		t.Fatalf("the blocking query ended after %v: %v", time.Since(began), err)
	default:
	}
	within(t, 5*time.Second, "the blocking query", func() error { return <-parked })
	if took := time.Since(began); took < 2*time.Second {
		t.Fatalf("it ended after %v", took)
	}
}

// R1.43: 10,000 calls on one stream.
func TestOneStreamServesManyCalls(t *testing.T) {
	d := start(t, "")
	c := stream(t, d.session(t, byteV2))
	for n := range 10000 {
		if err := call(c, "Status.Ping", struct{}{}, &struct{}{}); err != nil {
			t.Fatalf("call %d: %v", n, err)
		}
	}
}

// R1.47, R1.48: errors, and what they leave usable.
func TestErrors(t *testing.T) {
	d := start(t, "")
	session := d.session(t, byteV2)
	c := stream(t, session)
	err := call(c, "Node.GetNode", query{Region: "mars"}, &meta{})
	if err == nil || err.Error() != "No path to region" {
		t.Fatalf("got %v", err)
	}
	if err := call(c, "Status.Ping", struct{}{}, &struct{}{}); err != nil {
		t.Fatalf("the stream stays usable: %v", err)
	}
	err = call(c, "Nope.Nothing", struct{}{}, &struct{}{})
	if err == nil || err.Error() != "rpc: can't find service Nope.Nothing" {
		t.Fatalf("got %v", err)
	}
	if err := call(c, "Status.Ping", struct{}{}, &struct{}{}); err == nil {
		t.Fatal("the stream is closed after an unknown method")
	}
	if err := call(stream(t, session), "Status.Ping", struct{}{}, &struct{}{}); err != nil {
		t.Fatalf("the session lives: %v", err)
	}
}

// R1.87: a change of its own wakes a query.
func TestAQueryIsWokenByItsOwnChange(t *testing.T) {
	d := start(t, "")
	session := d.session(t, byteV2)
	writer, reader := stream(t, session), stream(t, session)
	var update nodeUpdate
	if err := call(writer, "Node.Register", register{aNode(idA, secretA), "global"}, &update); err != nil {
		t.Fatal(err)
	}
	type getNode struct {
		query
		NodeID string
	}
	woken := make(chan uint64, 1)
	go func() {
		var reply struct {
			Node map[string]any
			meta
		}
		_ = call(reader, "Node.GetNode", getNode{query{Region: "global", MinQueryIndex: update.Index}, idA}, &reply)
		woken <- reply.Index
	}()
	if err := call(writer, "Node.Register", register{aNode(idB, secretB), "global"}, &nodeUpdate{}); err != nil {
		t.Fatal(err)
	}
	select {
	case index := <-woken:
		t.Fatalf("woken by another node's change, index %d", index)
	case <-time.After(200 * time.Millisecond):
	}
	beat := heartbeat{NodeID: idA, Status: "ready", Region: "global", AuthToken: secretA}
	if err := call(writer, "Node.UpdateStatus", beat, &update); err != nil {
		t.Fatal(err)
	}
	within(t, 5*time.Second, "the woken query", func() error {
		if index := <-woken; index != update.Index {
			return fmt.Errorf("index %d, written at %d", index, update.Index)
		}
		return nil
	})
}

// client-boot notes: both lines of agents become ready and stay so; the older one sends no token at all.
func TestBothLinesOfAgentsBecomeReady(t *testing.T) {
	d := start(t, "")
	for _, line := range []struct{ version, id, secret, token string }{
		{"1.1.2", idA, secretA, ""},
		{"2.0.5", idB, secretB, secretB},
	} {
		session := d.session(t, byteV2)
		c, blocked := stream(t, session), stream(t, session)
		n := aNode(line.id, line.secret)
		n["Attributes"] = map[string]string{"nomad.version": line.version}
		if err := call(c, "Status.Ping", struct{}{}, &struct{}{}); err != nil {
			t.Fatal(err)
		}
		var update nodeUpdate
		if err := call(c, "Node.Register", register{n, "global"}, &update); err != nil {
			t.Fatal(err)
		}
		if len(update.Servers) == 0 || update.Servers[0].RPCAdvertiseAddr != d.rpc || update.HeartbeatTTL < 10*time.Second {
			t.Fatalf("%s: %+v", line.version, update)
		}
		type allocs struct {
			query
			NodeID, SecretID string
		}
		var answer struct {
			Allocs map[string]uint64
			meta
		}
		ask := allocs{query{Region: "global", AllowStale: true, AuthToken: line.token}, line.id, line.secret}
		if err := call(c, "Node.GetClientAllocs", ask, &answer); err != nil || answer.Index == 0 || answer.Allocs == nil {
			t.Fatalf("%s: %+v %v", line.version, answer, err)
		}
		ask.MinQueryIndex = answer.Index
		go func() { _ = call(blocked, "Node.GetClientAllocs", ask, &answer) }()
		for n := range 3 {
			beat := heartbeat{line.id, "ready", "global", line.token}
			if err := call(c, "Node.UpdateStatus", beat, &update); err != nil || update.HeartbeatTTL < 10*time.Second {
				t.Fatalf("%s: heartbeat %d: %+v %v", line.version, n, update, err)
			}
			if n > 0 && update.Index != 0 {
				t.Fatalf("%s: a plain heartbeat wrote at %d", line.version, update.Index)
			}
		}
	}
	// Who shows no secret at all is told to register, and may not go on.
	stranger := stream(t, d.session(t, byteV2))
	err := call(stranger, "Node.UpdateStatus", heartbeat{idA, "ready", "global", ""}, &nodeUpdate{})
	if err == nil || !strings.Contains(err.Error(), "node not found") {
		t.Fatalf("got %v", err)
	}
}

// R1.55, R1.57, R1.60, R1.62: calls are carried to a node over the session that it dialled.
func TestACallReachesItsNode(t *testing.T) {
	d := start(t, "")
	session := d.session(t, byteV2)
	if err := call(stream(t, session), "Node.Register", register{aNode(idA, secretA), "global"}, &nodeUpdate{}); err != nil {
		t.Fatal(err)
	}
	firstBytes := make(chan byte, 8)
	go serveNode(session, firstBytes)
	caller := stream(t, d.session(t, byteV2))
	type stats struct {
		query
		NodeID string
	}
	var reply struct{ Uptime uint64 }
	within(t, 5*time.Second, "ClientStats.Stats", func() error {
		return call(caller, "ClientStats.Stats", stats{query{Region: "global"}, idA}, &reply)
	})
	if reply.Uptime != 42 || <-firstBytes != byteRPC {
		t.Fatalf("%+v", reply)
	}
	err := call(caller, "ClientStats.Stats", stats{query{Region: "global"}, idB}, &reply)
	if err == nil || !strings.HasPrefix(err.Error(), "Unknown node") {
		t.Fatalf("got %v", err)
	}
	// A streaming call to the node is bridged.
	conn := d.dial(t, byteStreaming)
	encoder, decoder := codec.NewEncoder(conn, handle()), codec.NewDecoder(conn, handle())
	_ = encoder.Encode(map[string]string{"Method": "Agent.Monitor"})
	var ack struct{ Error string }
	if err := decoder.Decode(&ack); err != nil || ack.Error != "" {
		t.Fatalf("%+v %v", ack, err)
	}
	_ = encoder.Encode(map[string]any{"Region": "global", "NodeID": idA, "LogLevel": "info"})
	var frame struct{ Payload []byte }
	within(t, 5*time.Second, "a frame from the node", func() error { return decoder.Decode(&frame) })
	if string(frame.Payload) != "from the node" || <-firstBytes != byteStreaming {
		t.Fatalf("%q", frame.Payload)
	}
	// The node goes: there is no path any more.
	session.Close()
	eventually(t, 5*time.Second, "no path", func() bool {
		err := call(caller, "ClientStats.Stats", stats{query{Region: "global"}, idA}, &reply)
		return err != nil && strings.Contains(err.Error(), "No path to node")
	})
}

// serveNode answers like an agent: ClientStats.Stats, and one frame of Agent.Monitor.
func serveNode(session *yamux.Session, firstBytes chan<- byte) {
	for {
		conn, err := session.Accept()
		if err != nil {
			return
		}
		go func() {
			defer conn.Close()
			first := make([]byte, 1)
			if _, err := io.ReadFull(conn, first); err != nil {
				return
			}
			firstBytes <- first[0]
			encoder, decoder := codec.NewEncoder(conn, handle()), codec.NewDecoder(conn, handle())
			var head, body map[string]any
			if decoder.Decode(&head) != nil {
				return
			}
			if first[0] == byteStreaming {
				_ = encoder.Encode(map[string]string{"Error": ""})
				if decoder.Decode(&body) != nil {
					return
				}
				_ = encoder.Encode(map[string]any{"Error": nil, "Payload": []byte("from the node")})
				_, _ = io.Copy(io.Discard, conn)
				return
			}
			if decoder.Decode(&body) != nil {
				return
			}
			_ = encoder.Encode(map[string]any{"Error": "", "Seq": head["Seq"], "ServiceMethod": head["ServiceMethod"]})
			_ = encoder.Encode(map[string]any{"Uptime": 42, "HostStats": map[string]any{"Uptime": 42}})
		}()
	}
}

// Event.Stream: a heartbeat at once, what happened before, then what happens.
func TestEventsStream(t *testing.T) {
	d := start(t, "")
	writer := stream(t, d.session(t, byteV2))
	if err := call(writer, "Node.Register", register{aNode(idA, secretA), "global"}, &nodeUpdate{}); err != nil {
		t.Fatal(err)
	}
	conn := d.dial(t, byteStreaming)
	encoder, decoder := codec.NewEncoder(conn, handle()), codec.NewDecoder(conn, handle())
	_ = encoder.Encode(map[string]string{"Method": "Event.Stream"})
	var ack struct{ Error string }
	if err := decoder.Decode(&ack); err != nil || ack.Error != "" {
		t.Fatalf("%+v %v", ack, err)
	}
	_ = encoder.Encode(map[string]any{"Region": "global", "Topics": map[string][]string{"Node": {"*"}}, "Index": 0})
	type wrapper struct{ Event struct{ Data []byte } }
	next := func(what string) string {
		var w wrapper
		within(t, 5*time.Second, what, func() error { return decoder.Decode(&w) })
		return string(w.Event.Data)
	}
	if first := next("the first heartbeat"); first != "{}" {
		t.Fatal(first)
	}
	if data := next("the registration"); !strings.Contains(data, "NodeRegistration") || strings.Contains(data, secretA) {
		t.Fatal(data)
	}
	if err := call(writer, "Node.UpdateStatus", heartbeat{idA, "ready", "global", secretA}, &nodeUpdate{}); err != nil {
		t.Fatal(err)
	}
	if data := next("the status change"); !strings.Contains(data, "NodeStreamEvent") || !strings.Contains(data, `"ready"`) {
		t.Fatal(data)
	}
}

// R1.41: flow control both ways, with big messages and windows of 256 KiB.
func TestBigMessagesPassTheWindows(t *testing.T) {
	d := start(t, "")
	session := d.session(t, byteV2)
	c := stream(t, session)
	n := aNode(idA, secretA)
	big := strings.Repeat("x", 700<<10)
	n["Meta"] = map[string]string{"big": big}
	if err := call(c, "Node.Register", register{n, "global"}, &nodeUpdate{}); err != nil {
		t.Fatal(err)
	}
	type getNode struct {
		query
		NodeID string
	}
	var reply struct {
		Node struct{ Meta map[string]string }
	}
	within(t, 10*time.Second, "a big reply", func() error {
		return call(c, "Node.GetNode", getNode{query{Region: "global"}, idA}, &reply)
	})
	if reply.Node.Meta["big"] != big {
		t.Fatal("the value came back changed")
	}
}

// R1.32: a backlog of streams that say nothing is cut at 256; pings are answered meanwhile.
func TestPingsAndSilentStreams(t *testing.T) {
	d := start(t, "")
	session := d.session(t, byteV2)
	if _, err := session.Ping(); err != nil {
		t.Fatal(err)
	}
	silent, err := session.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	within(t, 2*time.Second, "a call beside a silent stream", func() error {
		return call(stream(t, session), "Status.Ping", struct{}{}, &struct{}{})
	})
}

// The official client against what the HTTP port serves.
func TestOfficialClient(t *testing.T) {
	d := start(t, "")
	client, err := api.NewClient(&api.Config{Address: "http://" + d.http})
	if err != nil {
		t.Fatal(err)
	}
	leader, err := client.Status().Leader()
	if err != nil || leader != d.rpc {
		t.Fatalf("leader %q %v", leader, err)
	}
	peers, err := client.Status().Peers()
	if err != nil || len(peers) != 1 || peers[0] != d.rpc {
		t.Fatalf("peers %q %v", peers, err)
	}
	regions, err := client.Regions().List()
	if err != nil || len(regions) != 1 || regions[0] != "global" {
		t.Fatalf("regions %q %v", regions, err)
	}
	health, err := client.Agent().Health()
	if err != nil || health.Server == nil || !health.Server.Ok {
		t.Fatalf("health %+v %v", health, err)
	}
	metrics, _, err := client.Operator().MetricsSummary(nil)
	if err != nil || len(metrics.Gauges) == 0 || len(metrics.Counters) == 0 {
		t.Fatalf("metrics %+v %v", metrics, err)
	}
	text, err := client.Operator().Metrics(&api.QueryOptions{Params: map[string]string{"format": "prometheus"}})
	if err != nil || !bytes.Contains(text, []byte("holdfast_rpc_requests_total")) {
		t.Fatalf("metrics %s %v", text, err)
	}
	var keys struct{ Keys []map[string]string }
	eventually(t, 5*time.Second, "a signing key", func() bool {
		_, err := client.Raw().Query("/.well-known/jwks.json", &keys, nil)
		return err == nil && len(keys.Keys) > 0
	})
}

// R1.37: on SIGTERM calls in hand are answered, new ones refused, and the end comes in time.
func TestAnOrderlyEnd(t *testing.T) {
	d := start(t, "")
	session := d.session(t, byteV2)
	c := stream(t, session)
	answered := make(chan error, 1)
	go func() {
		answered <- call(c, "Node.List", query{Region: "global", MinQueryIndex: 1 << 40, MaxQueryTime: time.Minute}, &meta{})
	}()
	eventually(t, 5*time.Second, "the query parks", func() bool { return parked(d) == 1 })
	ended := make(chan error, 1)
	go func() { ended <- d.stop(15) }()
	within(t, 5*time.Second, "the parked query", func() error { return <-answered })
	within(t, 10*time.Second, "the end", func() error { return <-ended })
	if _, err := net.DialTimeout("tcp", d.rpc, time.Second); err == nil {
		t.Fatal("the port still answers")
	}
}

func parked(d *daemon) int {
	conn, err := net.Dial("tcp", d.http)
	if err != nil {
		return -1
	}
	defer conn.Close()
	_, _ = conn.Write([]byte("GET /v1/metrics?format=prometheus HTTP/1.0\r\n\r\n"))
	text, _ := io.ReadAll(conn)
	for _, line := range strings.Split(string(text), "\n") {
		var n int
		if _, err := fmt.Sscanf(line, "holdfast_parked_queries %d", &n); err == nil {
			return n
		}
	}
	return -1
}

// Everything acknowledged survives kill -9.
func TestAcknowledgedWritesSurviveKill(t *testing.T) {
	d := start(t, "")
	c := stream(t, d.session(t, byteV2))
	for n := range 50 {
		id := fmt.Sprintf("cccccccc-0000-4000-8000-%012d", n)
		if err := call(c, "Node.Register", register{aNode(id, id[:35]+"f"), "global"}, &nodeUpdate{}); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.stop(9); err == nil {
		t.Fatal("it was killed")
	}
	d.run(t, "127.0.0.1:0", "127.0.0.1:0")
	var reply struct {
		Nodes []map[string]any
		meta
	}
	if err := call(stream(t, d.session(t, byteV2)), "Node.List", query{Region: "global"}, &reply); err != nil {
		t.Fatal(err)
	}
	if len(reply.Nodes) != 50 {
		t.Fatal(errors.New(fmt.Sprint(len(reply.Nodes), " of 50 nodes are left")))
	}
}
