import { engineContract } from "../../contract-suite.ts";
import { HostHarness } from "./host-harness.ts";

engineContract("vm", () => HostHarness.open(), "machine");
