import { command as define } from "../command.ts";

export const command = define({
  detail:
    "For this shell: source <(croft completion zsh). For every shell: put that line into ~/.zshrc, after compinit.",
  async run(_, { out }) {
    await out.write(script);
  },
});

const script = `#compdef croft
# Completion of croft in zsh. Every answer comes from croft itself.
_croft() {
  local line word
  local -a candidates
  while IFS= read -r line; do
    case $line in
      :file) _files; return ;;
      :folder) _files -/; return ;;
    esac
    word=\${line%%$'\\t'*}
    # _describe takes "word:description": colons of the word itself are escaped.
    if [[ $line == *$'\\t'* ]]; then
      candidates+=("\${word//:/\\\\:}:\${line#*$'\\t'}")
    else
      candidates+=("\${word//:/\\\\:}")
    fi
  done < <("\${words[1]}" __complete -- "\${(@)words[2,CURRENT]}" 2>/dev/null)
  _describe 'croft' candidates
}
compdef _croft croft
`;
