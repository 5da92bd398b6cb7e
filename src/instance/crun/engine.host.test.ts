import { engineContract } from "../contract-suite.ts";
import { HostHarness } from "./host-harness.ts";

engineContract("crun", () => HostHarness.open("crun"));
engineContract("runc", () => HostHarness.open("runc"));
