import { command as define } from "../command.ts";

export const command = define({
  detail: 'For this shell: eval "$(croft completion bash)". For every shell: put that line into ~/.bashrc.',
  async run(_, { out }) {
    await out.write(script);
  },
});

/**
 * The words are taken from the line itself, because bash splits at `:` and `=` too; what it has already of the word is
 * taken off the candidates again.
 */
const script = `# Completion of croft in bash. Every answer comes from croft itself.
_croft() {
  local line=\${COMP_LINE:0:COMP_POINT} word candidate described
  local -a words
  read -r -a words <<<"$line"
  [[ $line == *[[:space:]] ]] && words+=("")
  word=\${words[\${#words[@]}-1]}
  local keep=\${word%"\${COMP_WORDS[COMP_CWORD]}"}
  [[ \${COMP_WORDS[COMP_CWORD]} == [:=] ]] && keep=$word
  COMPREPLY=()
  while IFS= read -r described; do
    candidate=\${described%%$'\\t'*}
    case $candidate in
      :file) compopt -o default -o filenames 2>/dev/null; return ;;
      :folder) compopt -o filenames 2>/dev/null; COMPREPLY=($(compgen -d -- "$word")); return ;;
    esac
    COMPREPLY+=("\${candidate#"$keep"}")
  done < <("\${words[0]}" __complete -- "\${words[@]:1}" 2>/dev/null)
}
complete -F _croft croft
`;
