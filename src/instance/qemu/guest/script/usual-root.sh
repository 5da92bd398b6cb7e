# Finds root in the image: `usual_root` is yes when it is there as its first user, with `root_home`, and in `root_groups`
# besides its own. What a later layer takes away again is not seen here: then it is not usual, or has a group too many.

usual_root=no root_home=/ root_groups=
passwd= group=
for layer in /layer/*; do
  [ -f "$layer/etc/passwd" ] && passwd=$layer/etc/passwd
  [ -f "$layer/etc/group" ] && group=$layer/etc/group
done
if [ -n "$passwd" ] && IFS=: read -r login _ uid gid _ home _ <"$passwd" && [ "$login:$uid:$gid" = root:0:0 ]; then
  usual_root=yes
  case $home in /*) root_home=$home ;; esac
  case $root_home in *"'"*) usual_root=no ;; esac
  while IFS=: read -r _ _ gid members; do
    case ,$members, in *,root,*) ;; *) continue ;; esac
    case $gid in 0 | "" | *[!0-9]*) continue ;; esac
    root_groups=${root_groups:+$root_groups,}$gid
  done <"${group:-/dev/null}"
fi
