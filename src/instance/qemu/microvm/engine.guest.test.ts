import { engineContract } from "../../contract-suite.ts";
import { HostHarness } from "./host.fixture.ts";

engineContract("microvm", () => HostHarness.open());
