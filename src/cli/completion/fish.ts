import { command as define } from "../command.ts";

export const command = define({
  detail:
    "For this shell: croft completion fish | source. For every shell: write it to ~/.config/fish/completions/croft.fish.",
  async run(_, { out }) {
    await out.write(script);
  },
});

const script = `# Completion of croft in fish. Every answer comes from croft itself.
function __croft_complete
  set -l words (commandline -opc) (commandline -ct)
  for line in ($words[1] __complete -- $words[2..-1] 2>/dev/null)
    switch $line
      case ':file'
        __fish_complete_path (commandline -ct)
      case ':folder'
        __fish_complete_directories (commandline -ct)
      case '*'
        echo $line
    end
  end
end
complete -c croft -f -a '(__croft_complete)'
`;
