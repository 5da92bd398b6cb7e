# Shows a single file of the host where the directory around it holds nothing else, to the program that serves that
# directory: in the mount namespace that the two of them are in, so that it ends with them.
# Arguments: the file, its place (a file that is there), and the program with its arguments.
mount --bind "$1" "$2" || exit
shift 2
exec "$@"
