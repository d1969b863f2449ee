package interop

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"reflect"
	"sort"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/nomad/api"
	"github.com/hashicorp/nomad/api/contexts"
)

// called is what the steps below have called of the official client, by "Group.Method".
type called struct {
	t    *testing.T
	done map[string]bool
}

// ok runs a step that calls these methods, which must succeed.
func (c *called) ok(methods string, step func() error) {
	c.t.Helper()
	for _, method := range strings.Fields(methods) {
		c.done[method] = true
	}
	c.t.Run(strings.Fields(methods)[0], func(t *testing.T) {
		within(t, 20*time.Second, methods, step)
	})
}

func client(t *testing.T, d *daemon, token string) *api.Client {
	t.Helper()
	client, err := api.NewClient(&api.Config{Address: "http://" + d.http, SecretID: token})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return client
}

// expect says what differs.
func expect(what string, got, want any) error {
	if reflect.DeepEqual(got, want) {
		return nil
	}
	return fmt.Errorf("%s: got %v, want %v", what, got, want)
}

// refused checks that an error carries a status and, somewhere, a text.
func refused(err error, status int, text string) error {
	if err == nil {
		return fmt.Errorf("no error, want %d %q", status, text)
	}
	var unexpected api.UnexpectedResponseError
	if errors.As(err, &unexpected) && unexpected.StatusCode() != status {
		return fmt.Errorf("status %d, want %d: %v", unexpected.StatusCode(), status, err)
	}
	if !strings.Contains(err.Error(), text) {
		return fmt.Errorf("got %q, want %q in it", err, text)
	}
	return nil
}

const missing = "cccccccc-0000-4000-8000-00000000000c"

// Every method of the official client: those that touch what holdfast serves do what they do with Nomad; the others
// get 404 or 501 and a body that says so. A method that is in neither list fails the test.
func TestEveryMethodOfTheOfficialClient(t *testing.T) {
	c := &called{t, map[string]bool{}}
	open := start(t, "")
	variables(c, client(t, open, ""))
	locks(c, client(t, open, ""))
	nodes(c, open, client(t, open, ""))
	statusAndAgent(c, open, client(t, open, ""))
	namespaces(c, client(t, open, ""))
	operator(c, open, client(t, open, ""))
	events(c, client(t, open, ""))
	nothingThere(c, client(t, open, ""))
	manager := acl(c, start(t, "[acl]\nenabled = true"))

	unserved := []string{}
	byItself := 0
	root := reflect.ValueOf(manager)
	total := 0
	for _, group := range groups(root) {
		value := root.MethodByName(group).Call(nil)[0]
		for at := range value.NumMethod() {
			name := group + "." + value.Type().Method(at).Name
			total++
			if c.done[name] {
				continue
			}
			err := callWithAnything(value.Method(at))
			var unexpected api.UnexpectedResponseError
			switch {
			case err == nil:
				t.Errorf("%s: neither called by a step nor refused", name)
			case errors.As(err, &unexpected) && unexpected.HasStatusCode():
				if status := unexpected.StatusCode(); (status != 404 && status != 501) || !unexpected.HasBody() {
					t.Errorf("%s: want 404 or 501 with a body: %v", name, err)
				}
				unserved = append(unserved, name)
			case strings.Contains(err.Error(), "501") || strings.Contains(err.Error(), "404"):
				unserved = append(unserved, name)
			default:
				// The client refuses its arguments before it asks.
				unserved, byItself = append(unserved, name), byItself+1
			}
		}
	}
	sort.Strings(unserved)
	t.Logf("methods of the official client: %d; called and as expected: %d; not served: %d (of which %d the client refused by itself): %s",
		total, total-len(unserved), len(unserved), byItself, strings.Join(unserved, " "))
}

// groups are the client's own methods that give a group of methods.
func groups(root reflect.Value) []string {
	var names []string
	for at := range root.NumMethod() {
		method := root.Type().Method(at)
		if method.Type.NumIn() == 1 && method.Type.NumOut() == 1 && method.Type.Out(0).Kind() == reflect.Pointer {
			names = append(names, method.Name)
		}
	}
	return names
}

// callWithAnything calls a method with arguments of the right types, and gives its error.
func callWithAnything(method reflect.Value) (err error) {
	defer func() {
		// One group of the client is made without a client: it cannot ask anybody.
		if fault := recover(); fault != nil {
			err = fmt.Errorf("the client itself fails: %v", fault)
		}
	}()
	var args []reflect.Value
	kind := method.Type()
	for at := range kind.NumIn() {
		if kind.IsVariadic() && at == kind.NumIn()-1 {
			break
		}
		args = append(args, anything(kind.In(at)))
	}
	for _, result := range method.Call(args) {
		switch value := result.Interface().(type) {
		case error:
			return value
		case <-chan error:
			select {
			case err := <-value:
				return err
			case <-time.After(10 * time.Second):
				return errors.New("no error came")
			}
		}
	}
	return nil
}

func anything(kind reflect.Type) reflect.Value {
	switch kind {
	case reflect.TypeFor[context.Context]():
		return reflect.ValueOf(context.Background())
	case reflect.TypeFor[io.Reader]():
		return reflect.ValueOf(strings.NewReader(""))
	case reflect.TypeFor[io.Writer]():
		return reflect.ValueOf(io.Discard)
	case reflect.TypeFor[*api.Allocation]():
		return reflect.ValueOf(&api.Allocation{ID: missing, NodeID: missing})
	case reflect.TypeFor[*api.Job]():
		id := "job"
		return reflect.ValueOf(&api.Job{ID: &id, Name: &id})
	}
	switch kind.Kind() {
	case reflect.Pointer:
		value := reflect.New(kind.Elem())
		if value.Elem().Kind() == reflect.Struct {
			for _, field := range []string{"ID", "Name"} {
				if f := value.Elem().FieldByName(field); f.IsValid() && f.Kind() == reflect.String {
					f.SetString("x")
				}
			}
		}
		return value
	case reflect.String:
		return reflect.ValueOf("x").Convert(kind)
	case reflect.Chan:
		return reflect.MakeChan(reflect.ChanOf(reflect.BothDir, kind.Elem()), 0).Convert(kind)
	case reflect.Slice:
		if kind.Elem().Kind() == reflect.String {
			return reflect.ValueOf([]string{"x"})
		}
	}
	return reflect.Zero(kind)
}

func variables(c *called, client *api.Client) {
	vars := client.Variables()
	items := api.VariableItems{"k": "v", "SecretID": "kept", "Time": "2026"}
	var made *api.Variable
	c.ok("Variables.Create Variables.Read", func() error {
		v, wm, err := vars.Create(&api.Variable{Path: "app/one", Items: items}, nil)
		if err != nil || wm.LastIndex != v.ModifyIndex || v.CreateIndex != v.ModifyIndex {
			return fmt.Errorf("%+v %+v %w", v, wm, err)
		}
		made = v
		read, qm, err := vars.Read("app/one", nil)
		if err != nil || qm.LastIndex != v.ModifyIndex || !qm.KnownLeader {
			return fmt.Errorf("%+v %+v %w", read, qm, err)
		}
		return expect("items", read.Items, items)
	})
	c.ok("Variables.CheckedCreate", func() error {
		_, _, err := vars.CheckedCreate(&api.Variable{Path: "app/one", Items: items}, nil)
		var conflict api.ErrCASConflict
		if !errors.As(err, &conflict) || conflict.Conflict.ModifyIndex != made.ModifyIndex {
			return fmt.Errorf("want a conflict: %v", err)
		}
		_, _, err = vars.CheckedCreate(&api.Variable{Path: "app/two", Items: items}, nil)
		return err
	})
	c.ok("Variables.Update Variables.CheckedUpdate", func() error {
		v, _, err := vars.Update(&api.Variable{Path: "app/one", Items: api.VariableItems{"k": "2"}}, nil)
		if err != nil {
			return err
		}
		stale := &api.Variable{Path: "app/one", ModifyIndex: made.ModifyIndex, Items: items}
		var conflict api.ErrCASConflict
		if _, _, err = vars.CheckedUpdate(stale, nil); !errors.As(err, &conflict) {
			return fmt.Errorf("want a conflict: %v", err)
		}
		if err := expect("conflict", conflict.Conflict.Items["k"], "2"); err != nil {
			return err
		}
		v.Items = items
		_, _, err = vars.CheckedUpdate(v, nil)
		return err
	})
	c.ok("Variables.Peek Variables.GetItems Variables.GetVariableItems", func() error {
		none, qm, err := vars.Peek("app/none", nil)
		if err != nil || none != nil || qm.LastIndex == 0 {
			return fmt.Errorf("%+v %+v %w", none, qm, err)
		}
		if _, _, err := vars.Read("app/none", nil); !errors.Is(err, api.ErrVariablePathNotFound) {
			return fmt.Errorf("want not found: %v", err)
		}
		got, _, err := vars.GetItems("app/one", nil)
		if err != nil {
			return err
		}
		again, _, err := vars.GetVariableItems("app/one", nil)
		if err != nil {
			return err
		}
		return errors.Join(expect("items", *got, items), expect("items", again, items))
	})
	c.ok("Variables.List Variables.PrefixList", func() error {
		list, qm, err := vars.List(nil)
		if err != nil || len(list) != 2 || qm.LastIndex == 0 {
			return fmt.Errorf("%+v %+v %w", list, qm, err)
		}
		page, qm, err := vars.List(&api.QueryOptions{PerPage: 1})
		if err != nil || len(page) != 1 || qm.NextToken != "default.app/two" {
			return fmt.Errorf("%+v %+v %w", page, qm, err)
		}
		some, _, err := vars.PrefixList("app/t", nil)
		if err != nil || len(some) != 1 || some[0].Path != "app/two" {
			return fmt.Errorf("%+v %w", some, err)
		}
		filtered, _, err := vars.List(&api.QueryOptions{Filter: `Path == "app/one"`})
		if err != nil || len(filtered) != 1 {
			return fmt.Errorf("%+v %w", filtered, err)
		}
		_, _, err = vars.List(&api.QueryOptions{Filter: `Nope == 1`})
		return refused(err, 400, "couldn't find key")
	})
	// A blocking list under a prefix sleeps through writes elsewhere, and wakes by its own.
	c.ok("Variables.PrefixList", func() error {
		_, qm, err := vars.PrefixList("app/", nil)
		if err != nil {
			return err
		}
		woken := make(chan error, 1)
		go func() {
			list, _, err := vars.PrefixList("app/", &api.QueryOptions{WaitIndex: qm.LastIndex, WaitTime: 15 * time.Second})
			if err == nil && len(list) != 3 {
				err = fmt.Errorf("woken with %d", len(list))
			}
			woken <- err
		}()
		if _, _, err := vars.Create(&api.Variable{Path: "other/x", Items: items}, nil); err != nil {
			return err
		}
		select {
		case err := <-woken:
			return fmt.Errorf("woken by another prefix: %v", err)
		case <-time.After(300 * time.Millisecond):
		}
		if _, _, err := vars.Create(&api.Variable{Path: "app/three", Items: items}, nil); err != nil {
			return err
		}
		return <-woken
	})
	c.ok("Variables.Delete Variables.CheckedDelete", func() error {
		if _, err := vars.CheckedDelete("app/two", 1, nil); err == nil {
			return errors.New("a check that cannot hold")
		}
		v, _, err := vars.Read("app/two", nil)
		if err != nil {
			return err
		}
		if _, err := vars.CheckedDelete("app/two", v.ModifyIndex, nil); err != nil {
			return err
		}
		if _, err := vars.Delete("app/three", nil); err != nil {
			return err
		}
		_, err = vars.Delete("app/never", nil)
		return err
	})
	c.ok("Variables.Create", func() error {
		for _, wrong := range []struct {
			v      api.Variable
			status int
			text   string
		}{
			{api.Variable{Path: "a.b", Items: items}, 400, "invalid path"},
			{api.Variable{Path: "nomad/x", Items: items}, 400, "valid paths"},
			{api.Variable{Path: "x", Items: api.VariableItems{"k": strings.Repeat("x", 70000)}}, 400, "64KiB"},
			{api.Variable{Path: "x"}, 400, "tems"},
		} {
			_, _, err := vars.Create(&wrong.v, nil)
			if err := refused(err, wrong.status, wrong.text); err != nil {
				return err
			}
		}
		return nil
	})
}

func locks(c *called, client *api.Client) {
	vars := client.Variables()
	c.ok("Variables.AcquireLock Variables.RenewLock Variables.ReleaseLock", func() error {
		held, _, err := vars.AcquireLock(&api.Variable{Path: "lock/a", Lock: &api.VariableLock{TTL: "15s", LockDelay: "1s"}}, nil)
		if err != nil || held.LockID() == "" {
			return fmt.Errorf("%+v %w", held, err)
		}
		_, _, err = vars.AcquireLock(&api.Variable{Path: "lock/a", Lock: &api.VariableLock{TTL: "15s", LockDelay: "1s"}}, nil)
		if err == nil {
			return errors.New("two holders")
		}
		if _, _, err := vars.Update(&api.Variable{Path: "lock/a", Items: api.VariableItems{"x": "y"}}, nil); err == nil {
			return errors.New("written without the lock")
		}
		written := &api.Variable{Path: "lock/a", Items: api.VariableItems{"x": "y"}, Lock: &api.VariableLock{ID: held.LockID()}}
		if _, _, err := vars.Update(written, nil); err != nil {
			return err
		}
		// Whoever does not hold it sees no id.
		seen, _, err := vars.Read("lock/a", nil)
		if err != nil {
			return err
		}
		_ = seen
		renewed, _, err := vars.RenewLock(&api.Variable{Path: "lock/a", Lock: &api.VariableLock{ID: held.LockID()}}, nil)
		if err != nil || renewed.Path != "lock/a" {
			return fmt.Errorf("%+v %w", renewed, err)
		}
		_, _, err = vars.RenewLock(&api.Variable{Path: "lock/a", Lock: &api.VariableLock{ID: missing}}, nil)
		if err == nil {
			return errors.New("renewed by another")
		}
		freed, _, err := vars.ReleaseLock(&api.Variable{Path: "lock/a", Lock: &api.VariableLock{ID: held.LockID()}}, nil)
		if err != nil || freed.Lock != nil {
			return fmt.Errorf("%+v %w", freed, err)
		}
		_, _, err = vars.Update(&api.Variable{Path: "lock/a", Items: api.VariableItems{"x": "z"}}, nil)
		return err
	})
	c.t.Run("LockLeaser", func(t *testing.T) {
		within(t, 20*time.Second, "a leaser", func() error {
			lock := api.Variable{Path: "lock/leased", Lock: &api.VariableLock{TTL: "10s", LockDelay: "1s"}}
			one, err := client.Locks(api.WriteOptions{}, lock)
			if err != nil {
				return err
			}
			two, err := client.Locks(api.WriteOptions{}, lock)
			if err != nil {
				return err
			}
			return client.NewLockLeaser(one, api.LockLeaserOptionWithEarlyReturn(true)).Start(context.Background(), func(ctx context.Context) error {
				if _, err := two.Acquire(ctx); !errors.Is(err, api.ErrLockConflict) {
					return fmt.Errorf("want a conflict: %v", err)
				}
				return one.Renew(ctx)
			})
		})
	})
}

func nodes(c *called, d *daemon, client *api.Client) {
	t := c.t
	session := d.session(t, byteV2)
	if err := call(stream(t, session), "Node.Register", register{aNode(idA, secretA), "global"}, &nodeUpdate{}); err != nil {
		t.Fatal(err)
	}
	go serveNode(session, make(chan byte, 64))
	nodes := client.Nodes()
	c.ok("Nodes.List Nodes.PrefixList Nodes.PrefixListOpts", func() error {
		list, qm, err := nodes.List(&api.QueryOptions{Params: map[string]string{"resources": "true", "os": "true"}})
		if err != nil || len(list) != 1 || list[0].ID != idA || qm.LastIndex == 0 {
			return fmt.Errorf("%+v %+v %w", list, qm, err)
		}
		some, _, err := nodes.PrefixList("aaaa")
		if err != nil || len(some) != 1 {
			return fmt.Errorf("%+v %w", some, err)
		}
		none, _, err := nodes.PrefixListOpts("bbbb", nil)
		return errors.Join(err, expect("nodes", len(none), 0))
	})
	c.ok("Nodes.Info", func() error {
		node, qm, err := nodes.Info(idA, nil)
		if err != nil || node.Name != "go" || qm.LastIndex == 0 {
			return fmt.Errorf("%+v %+v %w", node, qm, err)
		}
		_, _, err = nodes.Info(missing, nil)
		return refused(err, 404, "node not found")
	})
	c.ok("Nodes.Allocations Nodes.CSIVolumes", func() error {
		allocs, qm, err := nodes.Allocations(idA, nil)
		if err != nil || len(allocs) != 0 || qm.LastIndex == 0 {
			return fmt.Errorf("%+v %+v %w", allocs, qm, err)
		}
		_, err = nodes.CSIVolumes(idA, nil)
		return refused(err, 501, "not served")
	})
	c.ok("Nodes.ToggleEligibility Nodes.UpdateDrain Nodes.UpdateDrainOpts Nodes.MonitorDrain", func() error {
		for _, eligible := range []bool{false, true} {
			if _, err := nodes.ToggleEligibility(idA, eligible, nil); err != nil {
				return err
			}
		}
		drained, err := nodes.UpdateDrain(idA, &api.DrainSpec{Deadline: time.Hour}, false, nil)
		if err != nil || drained.NodeModifyIndex == 0 {
			return fmt.Errorf("%+v %w", drained, err)
		}
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		for message := range nodes.MonitorDrain(ctx, idA, drained.NodeModifyIndex, false) {
			if message.Level == api.MonitorMsgLevelError {
				return errors.New(message.Message)
			}
		}
		_, err = nodes.UpdateDrainOpts(idA, &api.DrainOptions{MarkEligible: true, Meta: map[string]string{"why": "done"}}, nil)
		return err
	})
	c.ok("Nodes.ForceEvaluate", func() error {
		_, _, err := nodes.ForceEvaluate(idA, nil)
		return err
	})
	c.ok("Nodes.Stats Nodes.Meta Nodes.Identity Nodes.GC Nodes.GcAlloc", func() error {
		stats, err := nodes.Stats(idA, nil)
		if err != nil || stats.Uptime != 42 {
			return fmt.Errorf("%+v %w", stats, err)
		}
		if _, err := nodes.Meta().Read(idA, nil); err != nil {
			return err
		}
		if _, err := nodes.Meta().Apply(&api.NodeMetaApplyRequest{NodeID: idA, Meta: map[string]*string{}}, nil); err != nil {
			return err
		}
		if _, err := nodes.Identity().Get(&api.NodeIdentityGetRequest{NodeID: idA}, nil); err != nil {
			return err
		}
		if _, err := nodes.Identity().Renew(&api.NodeIdentityRenewRequest{NodeID: idA}, nil); err != nil {
			return err
		}
		if err := nodes.GC(idA, nil); err != nil {
			return err
		}
		_, err = nodes.Stats(missing, nil)
		return errors.Join(refused(err, 404, "Unknown node"), refused(nodes.GcAlloc(missing, nil), 501, "not served"))
	})
	c.ok("Nodes.Purge", func() error {
		purged, _, err := nodes.Purge(idA, nil)
		if err != nil || purged.NodeModifyIndex == 0 {
			return fmt.Errorf("%+v %w", purged, err)
		}
		_, _, err = nodes.Purge(missing, nil)
		return refused(err, 500, "node not found")
	})
}

func statusAndAgent(c *called, d *daemon, client *api.Client) {
	c.ok("Status.Leader Status.RegionLeader Status.Peers Regions.List", func() error {
		leader, err := client.Status().Leader()
		region, err2 := client.Status().RegionLeader("global")
		peers, err3 := client.Status().Peers()
		regions, err4 := client.Regions().List()
		_, unknown := client.Status().RegionLeader("mars")
		return errors.Join(err, err2, err3, err4, expect("leader", leader, d.rpc), expect("leader", region, d.rpc),
			expect("peers", peers, []string{d.rpc}), expect("regions", regions, []string{"global"}), refused(unknown, 500, "No path to region"))
	})
	agent := client.Agent()
	c.ok("Agent.Health Agent.Members Agent.MembersOpts", func() error {
		health, err := agent.Health()
		if err != nil || health.Server == nil || !health.Server.Ok {
			return fmt.Errorf("%+v %w", health, err)
		}
		members, err := agent.Members()
		if err != nil || len(members.Members) != 1 || members.ServerRegion != "global" {
			return fmt.Errorf("%+v %w", members, err)
		}
		_, err = agent.MembersOpts(&api.QueryOptions{AllowStale: true})
		return err
	})
	c.ok("Agent.Self Agent.NodeName Agent.Datacenter Agent.Region", func() error {
		self, err := agent.Self()
		if err != nil || self.Config == nil || len(self.Stats) == 0 {
			return fmt.Errorf("%+v %w", self, err)
		}
		name, err := agent.NodeName()
		datacenter, err2 := agent.Datacenter()
		region, err3 := agent.Region()
		return errors.Join(err, err2, err3, expect("datacenter", datacenter, "dc1"), expect("region", region, "global"),
			expect("name", name != "", true))
	})
	c.ok("Agent.Join Agent.ForceLeave Agent.ForceLeaveWithOptions Agent.Reload", func() error {
		_, joined := agent.Join("127.0.0.1:1")
		if joined == nil {
			return errors.New("joined nobody, and was told so by no error")
		}
		return errors.Join(agent.ForceLeave("nobody"), agent.ForceLeaveWithOptions("nobody", api.ForceLeaveOpts{Prune: true}),
			agent.Reload(nil, nil))
	})
	c.ok("Agent.Servers Agent.SetServers", func() error {
		_, err := agent.Servers()
		return errors.Join(refused(err, 501, "Invalid method"), refused(agent.SetServers([]string{"127.0.0.1:1"}), 501, "Invalid method"))
	})
	c.ok("Agent.Monitor", func() error {
		stop := make(chan struct{})
		defer close(stop)
		frames, errs := agent.Monitor(stop, &api.QueryOptions{Params: map[string]string{"log_level": "debug"}})
		for {
			select {
			case frame := <-frames:
				if frame != nil && bytes.Contains(frame.Data, []byte("[")) {
					return nil
				}
				if err := agent.Reload(nil, nil); err != nil {
					return err
				}
			case err := <-errs:
				return err
			case <-time.After(100 * time.Millisecond):
				if err := agent.Reload(nil, nil); err != nil {
					return err
				}
			}
		}
	})
}

func namespaces(c *called, client *api.Client) {
	all := client.Namespaces()
	c.ok("Namespaces.Register Namespaces.Info Namespaces.List Namespaces.PrefixList", func() error {
		wm, err := all.Register(&api.Namespace{Name: "team", Description: "ours", Meta: map[string]string{"k": "v"}}, nil)
		if err != nil || wm.LastIndex == 0 {
			return fmt.Errorf("%+v %w", wm, err)
		}
		one, qm, err := all.Info("team", nil)
		if err != nil || one.Description != "ours" || one.Meta["k"] != "v" || qm.LastIndex != wm.LastIndex {
			return fmt.Errorf("%+v %+v %w", one, qm, err)
		}
		list, _, err := all.List(nil)
		// The client sorts them, the newest first.
		if err != nil || len(list) != 2 || list[1].Name != "default" {
			return fmt.Errorf("%+v %w", list, err)
		}
		some, _, err := all.PrefixList("te", nil)
		if err != nil || len(some) != 1 {
			return fmt.Errorf("%+v %w", some, err)
		}
		_, err = all.Register(&api.Namespace{Name: "de v"}, nil)
		_, _, none := all.Info("none", nil)
		return errors.Join(refused(err, 500, "invalid name"), refused(none, 404, "amespace not found"))
	})
	c.ok("Namespaces.Delete", func() error {
		items := api.VariableItems{"k": "v"}
		in := &api.WriteOptions{Namespace: "team"}
		if _, _, err := client.Variables().Create(&api.Variable{Path: "x", Namespace: "team", Items: items}, in); err != nil {
			return err
		}
		_, err := all.Delete("team", nil)
		if err := refused(err, 500, "has variables"); err != nil {
			return err
		}
		everywhere, _, err := client.Variables().List(&api.QueryOptions{Namespace: "*", Prefix: "x"})
		if err != nil || len(everywhere) != 1 || everywhere[0].Namespace != "team" {
			return fmt.Errorf("%+v %w", everywhere, err)
		}
		if _, err := client.Variables().Delete("x", in); err != nil {
			return err
		}
		if _, err := all.Delete("team", nil); err != nil {
			return err
		}
		_, err = all.Delete("default", nil)
		_, gone := all.Delete("team", nil)
		return errors.Join(refused(err, 500, "can not delete default namespace"), refused(gone, 500, "namespace not found"))
	})
}

func operator(c *called, d *daemon, client *api.Client) {
	op := client.Operator()
	var id string
	c.ok("Operator.RaftGetConfiguration", func() error {
		raft, err := op.RaftGetConfiguration(nil)
		if err != nil || len(raft.Servers) != 1 || !raft.Servers[0].Leader || !raft.Servers[0].Voter || raft.Servers[0].Address != d.rpc {
			return fmt.Errorf("%+v %w", raft, err)
		}
		id = raft.Servers[0].ID
		return nil
	})
	c.ok("Operator.RaftRemovePeerByID Operator.RaftRemovePeerByAddress Operator.RaftTransferLeadershipByID Operator.RaftTransferLeadershipByAddress", func() error {
		return errors.Join(
			refused(op.RaftRemovePeerByID("zz", nil), 500, "was not found in the Raft configuration"),
			refused(op.RaftRemovePeerByAddress("127.0.0.1:1", nil), 400, "not supported"),
			refused(op.RaftRemovePeerByID(id, nil), 400, "it is the only one"),
			refused(op.RaftTransferLeadershipByID(missing, nil), 400, "was not found in the Raft configuration"),
			refused(op.RaftTransferLeadershipByAddress("127.0.0.1:1", nil), 400, "was not found in the Raft configuration"),
			op.RaftTransferLeadershipByID(id, nil),
			op.RaftTransferLeadershipByAddress(d.rpc, nil),
		)
	})
	c.ok("Operator.AutopilotGetConfiguration Operator.AutopilotSetConfiguration Operator.AutopilotCASConfiguration Operator.AutopilotServerHealth", func() error {
		config, _, err := op.AutopilotGetConfiguration(nil)
		if err != nil || config.MaxTrailingLogs != 250 || config.ServerStabilizationTime != 10*time.Second {
			return fmt.Errorf("%+v %w", config, err)
		}
		config.MaxTrailingLogs = 300
		if _, err := op.AutopilotSetConfiguration(config, nil); err != nil {
			return err
		}
		config, _, err = op.AutopilotGetConfiguration(nil)
		if err != nil || config.MaxTrailingLogs != 300 {
			return fmt.Errorf("%+v %w", config, err)
		}
		written, _, err := op.AutopilotCASConfiguration(config, nil)
		if err != nil || !written {
			return fmt.Errorf("%v %w", written, err)
		}
		written, _, err = op.AutopilotCASConfiguration(config, nil)
		if err != nil || written {
			return fmt.Errorf("an old index was taken: %w", err)
		}
		health, _, err := op.AutopilotServerHealth(nil)
		if err != nil || !health.Healthy || health.Leader != id || len(health.Servers) != 1 {
			return fmt.Errorf("%+v %w", health, err)
		}
		return nil
	})
	c.ok("Operator.SchedulerGetConfiguration Operator.SchedulerSetConfiguration Operator.SchedulerCASConfiguration", func() error {
		config, _, err := op.SchedulerGetConfiguration(nil)
		if err != nil || config.SchedulerConfig.SchedulerAlgorithm != "binpack" {
			return fmt.Errorf("%+v %w", config, err)
		}
		config.SchedulerConfig.SchedulerAlgorithm = "spread"
		set, _, err := op.SchedulerSetConfiguration(config.SchedulerConfig, nil)
		if err != nil || !set.Updated {
			return fmt.Errorf("%+v %w", set, err)
		}
		cas, _, err := op.SchedulerCASConfiguration(&api.SchedulerConfiguration{SchedulerAlgorithm: "binpack", ModifyIndex: 1}, nil)
		if err != nil || cas.Updated {
			return fmt.Errorf("%+v %w", cas, err)
		}
		return nil
	})
	c.ok("Operator.Snapshot Operator.SnapshotRestore", func() error {
		vars := client.Variables()
		if _, _, err := vars.Create(&api.Variable{Path: "saved", Items: api.VariableItems{"k": "before"}}, nil); err != nil {
			return err
		}
		archive, err := op.Snapshot(nil)
		if err != nil {
			return err
		}
		defer archive.Close()
		// The reader compares the digest at its end.
		bytesOf, err := io.ReadAll(archive)
		if err != nil {
			return err
		}
		if _, _, err := vars.Update(&api.Variable{Path: "saved", Items: api.VariableItems{"k": "after"}}, nil); err != nil {
			return err
		}
		broken := bytes.Clone(bytesOf)
		broken[len(broken)/2] ^= 0x55
		if _, err := op.SnapshotRestore(bytes.NewReader(broken), nil); err == nil {
			return errors.New("a damaged archive was taken")
		}
		if _, err := op.SnapshotRestore(strings.NewReader("garbage"), nil); refused(err, 500, "failed to") != nil {
			return fmt.Errorf("garbage: %v", err)
		}
		if v, _, err := vars.Read("saved", nil); err != nil || v.Items["k"] != "after" {
			return fmt.Errorf("%+v %w", v, err)
		}
		if _, err := op.SnapshotRestore(bytes.NewReader(bytesOf), nil); err != nil {
			return err
		}
		v, _, err := vars.Read("saved", nil)
		if err != nil || v.Items["k"] != "before" {
			return fmt.Errorf("%+v %w", v, err)
		}
		_, _, err = vars.Update(&api.Variable{Path: "saved", Items: api.VariableItems{"k": "again"}}, nil)
		return err
	})
	c.ok("Operator.Metrics Operator.MetricsSummary Operator.LicenseGet", func() error {
		if _, err := op.Metrics(nil); err != nil {
			return err
		}
		summary, _, err := op.MetricsSummary(nil)
		if err != nil || len(summary.Gauges) == 0 {
			return fmt.Errorf("%+v %w", summary, err)
		}
		// As with the peer's free edition: 204, which the client does not take for an answer.
		_, _, err = op.LicenseGet(nil)
		return refused(err, 204, "")
	})
	keyring := client.Keyring()
	c.ok("Keyring.List Keyring.Rotate Keyring.Delete", func() error {
		keys, _, err := keyring.List(nil)
		if err != nil || len(keys) != 1 || keys[0].State != "active" {
			return fmt.Errorf("%+v %w", keys, err)
		}
		old := keys[0].KeyID
		made, _, err := keyring.Rotate(&api.KeyringRotateOptions{Full: true}, nil)
		if err != nil || made.KeyID == old {
			return fmt.Errorf("%+v %w", made, err)
		}
		// Once everything is under the new key the old one can go.
		deadline := time.Now().Add(10 * time.Second)
		for {
			if _, err = keyring.Delete(&api.KeyringDeleteOptions{KeyID: old}, nil); err == nil || time.Now().After(deadline) {
				break
			}
			<-time.After(20 * time.Millisecond)
		}
		if err != nil {
			return err
		}
		if v, _, err := client.Variables().Read("saved", nil); err != nil || v.Items["k"] != "again" {
			return fmt.Errorf("%+v %w", v, err)
		}
		_, err = keyring.Delete(&api.KeyringDeleteOptions{KeyID: made.KeyID}, nil)
		return refused(err, 400, "active")
	})
}

func events(c *called, client *api.Client) {
	c.ok("EventStream.Stream", func() error {
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		topics := map[api.Topic][]string{"Variable": {"watched"}}
		stream, err := client.EventStream().Stream(ctx, topics, 0, nil)
		if err != nil {
			return err
		}
		if _, _, err := client.Variables().Create(&api.Variable{Path: "not/watched", Items: api.VariableItems{"k": "v"}}, nil); err != nil {
			return err
		}
		written, _, err := client.Variables().Create(&api.Variable{Path: "watched", Items: api.VariableItems{"secret": "hidden"}}, nil)
		if err != nil {
			return err
		}
		batch := <-stream
		if batch.Err != nil || len(batch.Events) != 1 {
			return fmt.Errorf("%+v", batch)
		}
		event := batch.Events[0]
		if strings.Contains(fmt.Sprint(event.Payload), "hidden") {
			return errors.New("an event shows items")
		}
		return errors.Join(expect("index", event.Index, written.ModifyIndex), expect("key", event.Key, "watched"),
			expect("type", event.Type, "VariableUpdated"))
	})
}

// What the clients' commands ask for although there is none of it.
func nothingThere(c *called, client *api.Client) {
	c.ok("Jobs.List Jobs.PrefixList Jobs.ListOptions Allocations.List Allocations.PrefixList Evaluations.List Evaluations.PrefixList Deployments.List Deployments.PrefixList", func() error {
		jobs, _, err := client.Jobs().List(nil)
		jobs2, _, err2 := client.Jobs().PrefixList("x")
		jobs3, _, err3 := client.Jobs().ListOptions(nil, nil)
		allocs, _, err4 := client.Allocations().List(nil)
		allocs2, _, err5 := client.Allocations().PrefixList("x")
		evals, _, err6 := client.Evaluations().List(nil)
		evals2, _, err7 := client.Evaluations().PrefixList("x")
		deployments, _, err8 := client.Deployments().List(nil)
		deployments2, _, err9 := client.Deployments().PrefixList("x")
		return errors.Join(err, err2, err3, err4, err5, err6, err7, err8, err9,
			expect("things", len(jobs)+len(jobs2)+len(jobs3)+len(allocs)+len(allocs2)+len(evals)+len(evals2)+len(deployments)+len(deployments2), 0))
	})
	c.ok("NodePools.List NodePools.PrefixList System.GarbageCollect", func() error {
		pools, _, err := client.NodePools().List(nil)
		if err != nil || len(pools) != 2 {
			return fmt.Errorf("%+v %w", pools, err)
		}
		if _, _, err := client.NodePools().PrefixList("de", nil); err != nil {
			return err
		}
		return client.System().GarbageCollect()
	})
	c.ok("Search.PrefixSearch", func() error {
		found, _, err := client.Search().PrefixSearch("wat", contexts.Variables, nil)
		if err != nil {
			return err
		}
		return expect("matches", found.Matches[contexts.Variables], []string{"watched"})
	})
	c.ok("Raw.Query Raw.Write Raw.Delete Raw.Response Raw.Do", func() error {
		raw := client.Raw()
		var v api.Variable
		if _, err := raw.Write("/v1/var/raw", &api.Variable{Items: api.VariableItems{"k": "v"}}, &v, nil); err != nil {
			return err
		}
		if _, err := raw.Query("/v1/var/raw", &v, nil); err != nil || v.Items["k"] != "v" {
			return fmt.Errorf("%+v %w", v, err)
		}
		body, err := raw.Response("/v1/var/raw", nil)
		if err != nil {
			return err
		}
		body.Close()
		if _, err := client.Namespaces().Register(&api.Namespace{Name: "raw"}, nil); err != nil {
			return err
		}
		_, err = raw.Delete("/v1/namespace/raw", nil, nil)
		return err
	})
}

// acl gives a client that may do everything.
func acl(c *called, d *daemon) *api.Client {
	none := client(c.t, d, "")
	var root *api.Client
	c.ok("ACLTokens.Bootstrap ACLTokens.BootstrapOpts", func() error {
		_, _, err := none.ACLTokens().BootstrapOpts("short", nil)
		if err := refused(err, 400, "invalid acl token"); err != nil {
			return err
		}
		token, wm, err := none.ACLTokens().Bootstrap(nil)
		if err != nil || token.Type != "management" || token.SecretID == "" || wm.LastIndex == 0 {
			return fmt.Errorf("%+v %w", token, err)
		}
		root = client(c.t, d, token.SecretID)
		_, _, err = none.ACLTokens().Bootstrap(nil)
		return refused(err, 400, "ACL bootstrap already done")
	})
	if root == nil {
		c.t.Fatal("no management token")
	}
	policies := root.ACLPolicies()
	rules := `namespace "default" { variables { path "app/*" { capabilities = ["read", "list"] } path "app/w" { capabilities = ["write"] } } }`
	c.ok("ACLPolicies.Upsert ACLPolicies.Info ACLPolicies.List", func() error {
		if _, err := policies.Upsert(&api.ACLPolicy{Name: "app", Description: "apps", Rules: rules}, nil); err != nil {
			return err
		}
		policy, qm, err := policies.Info("app", nil)
		if err != nil || policy.Rules != rules || qm.LastIndex != policy.ModifyIndex {
			return fmt.Errorf("%+v %+v %w", policy, qm, err)
		}
		list, _, err := policies.List(nil)
		if err != nil || len(list) != 1 || list[0].Name != "app" {
			return fmt.Errorf("%+v %w", list, err)
		}
		_, err = policies.Upsert(&api.ACLPolicy{Name: "bad", Rules: `nonsense "x" {}`}, nil)
		_, _, gone := policies.Info("none", nil)
		return errors.Join(refused(err, 400, "invalid"), refused(gone, 404, "ACL policy not found"))
	})
	tokens := root.ACLTokens()
	var token *api.ACLToken
	c.ok("ACLTokens.Create ACLTokens.Info ACLTokens.List ACLTokens.Update", func() error {
		made, _, err := tokens.Create(&api.ACLToken{Name: "apps", Type: "client", Policies: []string{"app"}, ExpirationTTL: time.Hour}, nil)
		if err != nil || made.SecretID == "" || made.ExpirationTime == nil {
			return fmt.Errorf("%+v %w", made, err)
		}
		token = made
		info, _, err := tokens.Info(made.AccessorID, nil)
		if err != nil || info.SecretID != made.SecretID || info.ExpirationTTL != time.Hour {
			return fmt.Errorf("%+v %w", info, err)
		}
		list, _, err := tokens.List(nil)
		if err != nil || len(list) != 2 {
			return fmt.Errorf("%+v %w", list, err)
		}
		info.Name = "renamed"
		updated, _, err := tokens.Update(info, nil)
		if err != nil || updated.Name != "renamed" || updated.SecretID != made.SecretID {
			return fmt.Errorf("%+v %w", updated, err)
		}
		_, _, err = tokens.Create(&api.ACLToken{Name: "bare", Type: "client"}, nil)
		return refused(err, 400, "client token missing policies or roles")
	})
	if token == nil {
		c.t.Fatal("no token")
	}
	apps := client(c.t, d, token.SecretID)
	c.ok("ACLTokens.Self ACLPolicies.Self", func() error {
		self, _, err := apps.ACLTokens().Self(nil)
		if err != nil || self.AccessorID != token.AccessorID {
			return fmt.Errorf("%+v %w", self, err)
		}
		own, _, err := apps.ACLPolicies().Self(nil)
		if err != nil || len(own) != 1 || own[0].Name != "app" {
			return fmt.Errorf("%+v %w", own, err)
		}
		anonymous, _, err := none.ACLTokens().Self(nil)
		return errors.Join(err, expect("anonymous", anonymous.AccessorID, "anonymous"))
	})
	c.ok("Variables.Read", func() error {
		for _, path := range []string{"app/r", "app/w", "other"} {
			if _, _, err := root.Variables().Create(&api.Variable{Path: path, Items: api.VariableItems{"k": "v"}}, nil); err != nil {
				return err
			}
		}
		if _, _, err := apps.Variables().Read("app/r", nil); err != nil {
			return err
		}
		_, _, hidden := apps.Variables().Read("app/w", nil)
		_, _, other := apps.Variables().Read("other", nil)
		_, _, write := apps.Variables().Update(&api.Variable{Path: "app/r", Items: api.VariableItems{"k": "2"}}, nil)
		_, _, allowed := apps.Variables().Update(&api.Variable{Path: "app/w", Items: api.VariableItems{"k": "2"}}, nil)
		list, _, err := apps.Variables().List(nil)
		nothing, _, err2 := none.Variables().List(nil)
		_, _, nodes := apps.Nodes().List(nil)
		_, unknown := client(c.t, d, missing).Operator().RaftGetConfiguration(nil)
		_, stream := apps.EventStream().Stream(context.Background(), map[api.Topic][]string{"Node": {"*"}}, 0, nil)
		return errors.Join(allowed, err, err2, refused(hidden, 403, "Permission denied"), refused(other, 403, "Permission denied"),
			refused(write, 403, "Permission denied"), refused(nodes, 403, "Permission denied"), refused(unknown, 403, "Permission denied"),
			refused(stream, 403, "Permission denied"), expect("listed", len(list), 1), expect("listed without a token", len(nothing), 0))
	})
	roles := root.ACLRoles()
	c.ok("ACLRoles.Create ACLRoles.Get ACLRoles.GetByName ACLRoles.List ACLRoles.Update ACLRoles.Delete", func() error {
		role, _, err := roles.Create(&api.ACLRole{Name: "apps", Policies: []*api.ACLRolePolicyLink{{Name: "app"}}}, nil)
		if err != nil || role.ID == "" {
			return fmt.Errorf("%+v %w", role, err)
		}
		got, _, err := roles.Get(role.ID, nil)
		if err != nil || got.Name != "apps" {
			return fmt.Errorf("%+v %w", got, err)
		}
		byName, _, err := roles.GetByName("apps", nil)
		if err != nil || byName.ID != role.ID {
			return fmt.Errorf("%+v %w", byName, err)
		}
		list, _, err := roles.List(nil)
		if err != nil || len(list) != 1 {
			return fmt.Errorf("%+v %w", list, err)
		}
		by, _, err := tokens.Create(&api.ACLToken{Name: "by role", Type: "client", Roles: []*api.ACLTokenRoleLink{{Name: "apps"}}}, nil)
		if err != nil {
			return err
		}
		if _, _, err := client(c.t, d, by.SecretID).Variables().Read("app/r", nil); err != nil {
			return err
		}
		got.Description = "changed"
		if _, _, err := roles.Update(got, nil); err != nil {
			return err
		}
		if _, err := roles.Delete(role.ID, nil); err != nil {
			return err
		}
		_, _, gone := roles.Get(role.ID, nil)
		_, _, lost := client(c.t, d, by.SecretID).Variables().Read("app/r", nil)
		return errors.Join(refused(gone, 404, "not found"), refused(lost, 403, "Permission denied"))
	})
	c.ok("ACLTokens.Upload ACLTokens.Delete ACLPolicies.Delete", func() error {
		up := &api.ACLToken{AccessorID: missing, SecretID: idB, Name: "kept", Type: "client", Policies: []string{"app"}}
		if _, _, err := tokens.Upload(up, nil); err != nil {
			return err
		}
		if _, _, err := client(c.t, d, idB).Variables().Read("app/r", nil); err != nil {
			return err
		}
		if _, err := tokens.Delete(missing, nil); err != nil {
			return err
		}
		if _, err := policies.Delete("app", nil); err != nil {
			return err
		}
		_, _, lost := apps.Variables().Read("app/r", nil)
		_, again := tokens.Delete(missing, nil)
		return errors.Join(refused(lost, 403, "Permission denied"), refused(again, 400, "nonexistent"))
	})
	return root
}
