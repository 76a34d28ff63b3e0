#!/usr/bin/env bash
# Dovecot 2.3 as a peer for tambo-bench: Debian's packages unpacked into a prefix (nothing is installed, no user is
# made), mdbox with zstd, durable settings, plaintext listeners on 127.0.0.1 only.
#
#   bench/peers/dovecot.sh start DIR [USERS]   unpack, configure, start; users u0001..; prints pid and ports
#   bench/peers/dovecot.sh stop DIR            end it
#   bench/peers/dovecot.sh wipe DIR            end it and remove its mail
#
# Environment: PORT_BASE (default 20000: LMTP +24, POP3 +110, IMAP +143), FORMAT mdbox (default) or maildir, PASSWORD
# (default secret), DOMAIN (default example.test), PREFIX (where the packages go, default DIR/prefix).
# Needs root: mail is owned by the user `mail`, logins run as `nobody`, helpers as `daemon`; every Debian has all three.
set -euo pipefail

usage() { sed -n '2,11s/^# \{0,1\}//p' "$0" >&2; exit 64; }
[ $# -ge 2 ] || usage
verb=$1
dir=$(realpath -m "$2")
users=${3:-200}
base=${PORT_BASE:-20000}
format=${FORMAT:-mdbox}
password=${PASSWORD:-secret}
domain=${DOMAIN:-example.test}
prefix=${PREFIX:-$dir/prefix}
pidfile=$dir/run/master.pid
packages="dovecot-core dovecot-imapd dovecot-pop3d dovecot-lmtpd liblua5.4-0 libexttextcat-2.0-0"

unpack() {
    [ -x "$prefix/usr/sbin/dovecot" ] && return
    mkdir -p "$prefix/debs"
    # shellcheck disable=SC2086
    (cd "$prefix/debs" && apt-get download -q -o APT::Sandbox::User=root $packages >&2)
    for deb in "$prefix"/debs/*.deb; do
        dpkg-deb -x "$deb" "$prefix"
    done
}

write_users() {
    local n
    for n in $(seq 1 "$users"); do
        printf 'u%04d@%s:{PLAIN}%s::::::\n' "$n" "$domain" "$password"
    done >"$dir/passwd"
    sed 's/:{PLAIN}\([^:]*\):.*/:\1/' "$dir/passwd" >"$dir/users"
}

location() {
    case $format in
    mdbox) echo "mdbox:~/mdbox" ;;
    maildir) echo "maildir:~/Maildir" ;;
    *) usage ;;
    esac
}

# LMTP saves are fdatasync'ed under the default mail_fsync = optimized. Login and mail processes are reused and the
# limits raised, as its performance guide says for a busy server. Sieve, quota and statistics are left out.
write_config() {
    cat >"$dir/dovecot.conf" <<CONF
protocols = imap pop3 lmtp
listen = 127.0.0.1
base_dir = $dir/run
state_dir = $dir/state
default_internal_user = daemon
default_internal_group = daemon
default_login_user = nobody
default_process_limit = 1000
default_client_limit = 4000
default_vsz_limit = 0
first_valid_uid = 1
mail_uid = mail
mail_gid = mail
mail_home = $dir/mail/%n
mail_location = $(location)
mail_fsync = optimized
mail_max_userip_connections = 0
mail_plugins = $([ "$format" = mdbox ] && echo zlib)
ssl = no
disable_plaintext_auth = no
auth_mechanisms = plain
auth_cache_size = 16M
auth_verbose = no
log_path = $dir/log
info_log_path = /dev/null
hostname = peer.example.test
mdbox_rotate_size = 64M
mdbox_preallocate_space = no
lmtp_save_to_detail_mailbox = no
recipient_delimiter =
plugin {
  zlib_save = $([ "$format" = mdbox ] && echo zstd)
}
namespace inbox {
  inbox = yes
  separator = /
}
passdb {
  driver = passwd-file
  args = scheme=PLAIN username_format=%u $dir/passwd
}
userdb {
  driver = passwd-file
  args = username_format=%u $dir/passwd
  override_fields = uid=mail gid=mail home=$dir/mail/%n
}
service imap-login {
  service_count = 0
  process_min_avail = $(nproc)
  client_limit = 10000
  inet_listener imap {
    port = $((base + 143))
  }
  inet_listener imaps {
    port = 0
  }
}
service pop3-login {
  service_count = 0
  process_min_avail = $(nproc)
  client_limit = 10000
  inet_listener pop3 {
    port = $((base + 110))
  }
  inet_listener pop3s {
    port = 0
  }
}
service imap {
  service_count = 0
  process_limit = 8000
}
service pop3 {
  service_count = 0
  process_limit = 2000
}
service lmtp {
  service_count = 0
  process_min_avail = 4
  process_limit = 1000
  client_limit = 1
  inet_listener lmtp {
    port = $((base + 24))
  }
}
service auth {
  client_limit = 20000
}
service anvil {
  client_limit = 20000
}
service stats {
  client_limit = 20000
}
protocol lmtp {
  auth_username_format = %Lu
}
CONF
}

running() { [ -s "$pidfile" ] && kill -0 "$(cat "$pidfile")" 2>/dev/null; }

answers() { (exec 3<>"/dev/tcp/127.0.0.1/$1" && read -r -t 5 _ <&3) 2>/dev/null; }

# Debian's Dovecot knows its own programs and modules by absolute paths under /usr: it runs in a mount namespace of its
# own in which the prefix lies over /usr. The rest of the machine does not see that.
run_over_usr() {
    unshare -m sh -c 'mount -t overlay overlay -o "lowerdir=$1/usr:/usr" /usr && shift && exec "$@"' sh "$prefix" "$@"
}

start() {
    running && { echo "dovecot.sh: already running in $dir" >&2; exit 75; }
    mkdir -p "$dir/run" "$dir/state" "$dir/mail"
    unpack
    write_users
    write_config
    chmod 755 "$dir"
    chown mail:mail "$dir/mail"
    : >"$dir/log"
    ulimit -n 65536 2>/dev/null || true
    run_over_usr /usr/sbin/dovecot -c "$dir/dovecot.conf"
    for port in $((base + 24)) $((base + 110)) $((base + 143)); do
        answers "$port" && continue
        echo "dovecot.sh: port $port does not answer:" >&2
        tail -n 5 "$dir/log" >&2
        stop
        exit 69
    done
    echo "pid=$(cat "$pidfile") lmtp=$((base + 24)) pop3=$((base + 110)) imap=$((base + 143)) users=$dir/users"
}

stop() {
    running || return 0
    local pid
    pid=$(cat "$pidfile")
    kill "$pid"
    tail --pid="$pid" -f /dev/null
}

case $verb in
start) start ;;
stop) stop ;;
wipe) stop; rm -rf "$dir/mail" "$dir/state" "$dir/run" ;;
*) usage ;;
esac
