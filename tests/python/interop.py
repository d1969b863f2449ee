"""Drives a running holdfastd with python-nomad, the Python API client.

$HOLDFASTD names the program under test. Every public method of the client is called: what holdfast serves must do what
it does with Nomad, the rest must be refused with a status that says so. Every wait is on a condition with a deadline.
"""

import inspect
import json
import os
import queue
import re
import subprocess
import tempfile
import threading
import time
import unittest

import nomad
from nomad.api import exceptions

MISSING = "cccccccc-0000-4000-8000-00000000000c"
CALLED = set()


class Daemon:
    """A holdfastd with a data folder of its own."""

    def __init__(self, config=""):
        self.folder = tempfile.TemporaryDirectory()
        path = os.path.join(self.folder.name, "holdfastd.toml")
        with open(path, "w", encoding="utf-8") as file:
            file.write(f'data_dir = "{self.folder.name}/data"\n{config}\n')
        self.process = subprocess.Popen(
            [os.environ["HOLDFASTD"], "-c", path, "--rpc", "127.0.0.1:0", "--http", "127.0.0.1:0"],
            stderr=subprocess.PIPE,
            text=True,
        )
        self.ready = threading.Event()
        self.http = None
        self.lines = []
        threading.Thread(target=self.read, daemon=True).start()
        if not self.ready.wait(20):
            raise RuntimeError("holdfastd did not start:\n" + "".join(self.lines))

    def read(self):
        for line in self.process.stderr:
            self.lines.append(line)
            found = re.search(r"listening.* http=(\S+)", line)
            if found:
                self.http = found.group(1)
            if "serving requests" in line:
                self.ready.set()

    def client(self, token=None):
        host, port = self.http.rsplit(":", 1)
        return nomad.Nomad(host=host, port=int(port), timeout=10, token=token)

    def stop(self):
        self.process.kill()
        self.process.wait()
        self.folder.cleanup()


def groups(client):
    """The client's groups of methods, by name."""
    found = {}
    for name in (
        "acl agent allocation allocations deployment deployments evaluation evaluations job jobs metrics namespace "
        "namespaces node nodes operator regions scaling sentinel search system validate variable variables"
    ).split():
        found[name] = getattr(client, name)
    for outer, inner in (("status", "leader"), ("status", "peers"), ("event", "stream")):
        found[f"{outer}.{inner}"] = getattr(getattr(client, outer), inner)
    for inner in "ls cat read_at stream_file stream_logs stat stats allocation gc_allocation gc_all_allocations".split():
        found[f"client.{inner}"] = getattr(client.client, inner)
    return found


def methods(group):
    for name, method in inspect.getmembers(type(group), inspect.isfunction):
        # What the base class has is how it asks, not what.
        if not name.startswith("_") and name not in ("request", "method") and name in vars(type(group)):
            yield name, method


class Case(unittest.TestCase):
    """A daemon for all tests of a class."""

    config = ""

    @classmethod
    def setUpClass(cls):
        cls.daemon = Daemon(cls.config)
        cls.n = cls.daemon.client()

    @classmethod
    def tearDownClass(cls):
        cls.daemon.stop()

    def call(self, name, *args, **kwargs):
        """Calls a method by its whole name and notes it."""
        CALLED.add(name)
        group, method = name.rsplit(".", 1)
        return getattr(groups(self.n)[group], method)(*args, **kwargs)


class Variables(Case):
    def test_written_read_checked_and_removed(self):
        made = self.call("variable.create_variable", "app/one", {"Items": {"k": "v"}})
        self.assertEqual(made["Path"], "app/one")
        read = self.call("variable.get_variable", "app/one")
        self.assertEqual(read["Items"], {"k": "v"})
        self.assertIn("app/one", self.n.variable)
        self.assertNotIn("app/none", self.n.variable)
        with self.assertRaises(exceptions.VariableConflict):
            self.call("variable.create_variable", "app/one", {"Items": {"k": "2"}}, cas=1)
        self.call("variable.create_variable", "app/one", {"Items": {"k": "2"}}, cas=read["ModifyIndex"])
        with self.assertRaises(exceptions.URLNotFoundNomadException):
            self.call("variable.get_variable", "app/none")
        with self.assertRaises(exceptions.BadRequestNomadException):
            self.call("variable.create_variable", "app.one", {"Items": {"k": "v"}})
        self.call("variable.create_variable", "team/x", {"Items": {"k": "v"}}, namespace="team")
        self.assertEqual([v["Path"] for v in self.call("variables.get_variables", prefix="app")], ["app/one"])
        everywhere = self.call("variables.get_variables", namespace="*")
        self.assertEqual([v["Namespace"] for v in everywhere], ["default", "team"])
        self.assertIn("app/one", self.n.variables)
        with self.assertRaises(exceptions.VariableConflict):
            self.call("variable.delete_variable", "app/one", cas=1)
        self.call("variable.delete_variable", "app/one")
        self.assertEqual(self.call("variables.get_variables"), [])


class Cluster(Case):
    def test_status_regions_agent_and_metrics(self):
        leader = self.call("status.leader.get_leader")
        self.assertEqual(self.call("status.peers.get_peers"), [leader])
        self.assertEqual(self.call("regions.get_regions"), ["global"])
        self.assertEqual(self.call("agent.get_agent")["config"]["Region"], "global")
        self.assertEqual(len(self.call("agent.get_members")["Members"]), 1)
        self.assertIn("Gauges", self.call("metrics.get_metrics"))
        self.assertEqual(self.call("agent.join_agent", "127.0.0.1:1")["num_joined"], 0)
        self.call("agent.force_leave", "nobody")
        self.call("system.initiate_garbage_collection")
        self.assertEqual(len(self.call("operator.get_configuration")["Servers"]), 1)
        with self.assertRaises(exceptions.BaseNomadException):
            self.call("operator.delete_peer", "127.0.0.1:1")

    def test_nodes(self):
        self.assertEqual(self.call("nodes.get_nodes"), [])
        with self.assertRaises(exceptions.URLNotFoundNomadException):
            self.call("node.get_node", MISSING)
        self.assertEqual(self.call("node.get_allocations", MISSING), [])
        for name in ("evaluate_node", "purge_node"):
            with self.assertRaises(exceptions.BaseNomadException):
                self.call(f"node.{name}", MISSING)
        with self.assertRaises(exceptions.BaseNomadException):
            self.call("node.drain_node_with_spec", MISSING, drain_spec=None)
        with self.assertRaises(exceptions.BaseNomadException):
            self.call("node.eligible_node", MISSING, eligible=True)
        with self.assertRaises(exceptions.BadRequestNomadException):
            self.call("node.drain_node", MISSING)

    def test_namespaces(self):
        self.call("namespace.create_namespace", {"Name": "team", "Description": "ours"})
        self.assertEqual(self.call("namespace.get_namespace", "team")["Description"], "ours")
        self.call("namespace.update_namespace", "team", {"Name": "team", "Description": "theirs"})
        self.assertEqual([n["Name"] for n in self.call("namespaces.get_namespaces", prefix="te")], ["team"])
        self.assertIn("team", self.n.namespaces)
        self.call("namespace.delete_namespace", "team")
        with self.assertRaises(exceptions.URLNotFoundNomadException):
            self.call("namespace.get_namespace", "team")

    def test_search_and_lists_of_nothing(self):
        self.n.variable.create_variable("found/me", {"Items": {"k": "v"}})
        # This client knows no context for variables of their own.
        self.assertEqual(self.call("search.search", "fou", "all")["Matches"]["vars"], ["found/me"])
        for name in ("jobs.get_jobs", "allocations.get_allocations", "evaluations.get_evaluations", "deployments.get_deployments"):
            self.assertEqual(self.call(name), [])

    def test_events(self):
        events = queue.Queue()
        CALLED.add("event.stream.get_stream")
        stream, leave, events = self.n.event.stream.get_stream(topic={"Variable": "watched"}, event_queue=events)
        stream.daemon = True
        stream.start()
        # Written again until it is seen: the stream begins when it begins.
        deadline = time.monotonic() + 10
        seen = None
        while seen is None and time.monotonic() < deadline:
            self.n.variable.create_variable("watched", {"Items": {"k": "v"}})
            try:
                seen = events.get(timeout=0.5)
            except queue.Empty:
                pass
        leave.set()
        self.assertIsNotNone(seen, "no event came")
        self.assertEqual(seen["Events"][0]["Topic"], "Variable")
        self.assertNotIn('"v"', json.dumps(seen["Events"][0]["Payload"]))


class Acl(Case):
    config = "[acl]\nenabled = true"

    def test_tokens_and_policies(self):
        root = self.call("acl.generate_bootstrap")
        self.assertEqual(root["Type"], "management")
        anonymous = self.n
        with self.assertRaises(exceptions.URLNotAuthorizedNomadException):
            self.call("acl.get_tokens")
        type(self).n = self.daemon.client(root["SecretID"])
        rules = 'namespace "default" { variables { path "app/*" { capabilities = ["read", "list"] } } }'
        self.call("acl.create_policy", "app", {"Name": "app", "Description": "apps", "Rules": rules})
        self.call("acl.update_policy", "app", {"Name": "app", "Description": "all apps", "Rules": rules})
        self.assertEqual(self.call("acl.get_policy", "app")["Description"], "all apps")
        self.assertEqual([p["Name"] for p in self.call("acl.get_policies")], ["app"])
        token = self.call("acl.create_token", {"Name": "apps", "Type": "client", "Policies": ["app"]})
        accessor = token["AccessorID"]
        self.call("acl.update_token", accessor, {"AccessorID": accessor, "Name": "renamed", "Type": "client", "Policies": ["app"]})
        self.assertEqual(self.call("acl.get_token", accessor)["Name"], "renamed")
        self.assertEqual(len(self.call("acl.get_tokens")), 2)
        self.assertEqual(self.call("acl.get_self_token")["AccessorID"], root["AccessorID"])
        self.n.variable.create_variable("app/one", {"Items": {"k": "v"}})
        apps = self.daemon.client(token["SecretID"])
        self.assertEqual(apps.variable.get_variable("app/one")["Items"], {"k": "v"})
        for refused in (
            lambda: apps.variable.create_variable("app/one", {"Items": {"k": "2"}}),
            lambda: apps.nodes.get_nodes(),
            lambda: anonymous.variable.get_variable("app/one"),
        ):
            with self.assertRaises(exceptions.URLNotAuthorizedNomadException):
                refused()
        self.call("acl.delete_token", accessor)
        self.call("acl.delete_policy", "app")
        with self.assertRaises(exceptions.URLNotAuthorizedNomadException):
            apps.variable.get_variable("app/one")


class Rest(Case):
    """Runs last, by its name: whatever no other test has called."""

    def test_the_rest_is_refused_in_clear_words(self):
        total, refused, own = 0, [], []
        for group_name, group in groups(self.n).items():
            for name, method in methods(group):
                whole = f"{group_name}.{name}"
                total += 1
                if whole in CALLED:
                    continue
                names = list(inspect.signature(method).parameters.values())[1:]
                needed = [p.name for p in names if p.default is inspect.Parameter.empty]
                args = [{"Job": {}} if name in ("job", "policy", "payload") else MISSING for name in needed]
                try:
                    answer = getattr(group, name)(*args)
                except exceptions.InvalidParameters:
                    refused.append(whole)
                    own.append(whole)
                    continue
                except exceptions.BaseNomadException as error:
                    answer = getattr(error, "nomad_resp", None)
                    status = getattr(answer, "status_code", None)
                    if status is None:
                        own.append(whole)
                    else:
                        self.assertIn(status, (400, 404, 501), f"{whole}: {status} {answer.text}")
                        self.assertTrue(answer.text, f"{whole}: {status} without a word")
                    refused.append(whole)
                    continue
                self.fail(f"{whole}: neither called by a test nor refused: {answer!r}")
        print(
            f"methods of python-nomad: {total}; called and as expected: {total - len(refused)}; "
            f"not served: {len(refused)} (of which {len(own)} the client refused by itself): {' '.join(refused)}"
        )


if __name__ == "__main__":
    suite = unittest.TestSuite()
    for case in (Variables, Cluster, Acl, Rest):
        suite.addTests(unittest.defaultTestLoader.loadTestsFromTestCase(case))
    result = unittest.TextTestRunner(verbosity=2).run(suite)
    bad = len(result.failures) + len(result.errors)
    print(f"python: {result.testsRun - bad} passed, {bad} failed")
    raise SystemExit(1 if bad else 0)
