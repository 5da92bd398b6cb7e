import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type Command, runSync } from "../process.ts";
import { startDaemon } from "./daemon.ts";

/** What a person would use for full machines: libvirt, with one that is defined. */
export interface Libvirt {
  readonly start: Command;
  /** What the machine says on its serial line. */
  readonly serialPath: string;
  end(): void;
  stop(): Promise<void>;
}

/** `diskPath`: raw, what it boots. */
export async function startLibvirt(folder: string, diskPath: string): Promise<Libvirt> {
  mkdirSync(folder, { recursive: true });
  mkdirSync("/run/libvirt", { recursive: true });
  writeFileSync(join(folder, "libvirtd.conf"), 'unix_sock_dir = "/run/libvirt"\nauth_unix_rw = "none"\n');
  // Its usual ways to confine QEMU need more of a host than a namespace is. Without them it is quicker, if anything.
  const qemu = ['user = "root"', 'group = "root"', 'security_driver = "none"', "namespaces = []"];
  qemu.push("cgroup_controllers = []", 'stdio_handler = "file"', "remember_owner = 0", "");
  writeFileSync("/etc/libvirt/qemu.conf", qemu.join("\n"));
  const argv = ["libvirtd", "--config", join(folder, "libvirtd.conf")];
  const daemon = await startDaemon(argv, "/run/libvirt/libvirt-sock", join(folder, "log"));
  runSync({ argv: ["ip", "link", "add", bridge, "type", "bridge"] });
  runSync({ argv: ["ip", "link", "set", bridge, "up"] });
  const serialPath = join(folder, "serial");
  writeFileSync(join(folder, "machine.xml"), machineXml(diskPath, serialPath, join(folder, "vnc.sock")));
  runSync(virsh("define", join(folder, "machine.xml")));
  return {
    start: virsh("start", "bench"),
    serialPath,
    // Its own way to end one takes a minute in a namespace like ours.
    end() {
      process.kill(Number(readFileSync("/run/libvirt/qemu/bench.pid", "utf8")), "SIGKILL");
      while (!runSync(virsh("domstate", "bench")).includes("shut off"));
    },
    async stop() {
      await daemon.stop();
      runSync({ argv: ["ip", "link", "del", bridge] });
    },
  };
}

function virsh(...args: readonly string[]): Command {
  return { argv: ["virsh", "-q", "-c", "qemu:///system", ...args] };
}

const bridge = "bench-virt";

/** The same devices as Croft gives a machine. */
function machineXml(diskPath: string, serialPath: string, vncPath: string): string {
  return `<domain type="qemu">
  <name>bench</name><memory unit="MiB">192</memory><vcpu>1</vcpu><cpu mode="maximum"/>
  <os><type arch="x86_64" machine="q35">hvm</type></os><features><acpi/></features>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <disk type="file" device="disk">
      <driver name="qemu" type="raw"/><source file="${diskPath}"/><target dev="vda" bus="virtio"/>
    </disk>
    <interface type="bridge"><source bridge="${bridge}"/><model type="virtio"/></interface>
    <serial type="file"><source path="${serialPath}"/></serial>
    <channel type="unix"><target type="virtio" name="org.qemu.guest_agent.0"/></channel>
    <graphics type="vnc" socket="${vncPath}"/><video><model type="vga"/></video>
    <rng model="virtio"><backend model="random">/dev/urandom</backend></rng>
    <memballoon model="virtio"/>
  </devices>
</domain>
`;
}
