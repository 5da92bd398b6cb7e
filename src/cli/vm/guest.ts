import { argument, command as define } from "../command.ts";
import { printJson } from "../context.ts";

export const command = define({
  detail:
    "Asks the agent in the guest, where it has one: the package qemu-guest-agent. It is the guest's word and no more.",
  args: { machine: argument.one("MACHINE", "files, shop/files or an id", { offers: "instance" }) },
  async run({ args }, context) {
    const guest = await context.client.machines.getGuest({ machine: args.machine });
    if (context.json) return await printJson(context, guest);
    const { hostname, system, kernel, addresses } = guest;
    const lines = [
      `hostname  ${hostname}`,
      `system    ${system}`,
      `kernel    ${kernel}`,
      ...addresses.map(({ interface: name, mac, address }) => `address   ${address}  ${name}  ${mac}`),
    ];
    await context.out.write(lines.map((line) => `${line}\n`).join(""));
  },
});
