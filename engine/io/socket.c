/*
 * socket.c: listening, connecting and closing by plain system calls, for the uring and posix backends.
 *
 * Addresses are numeric ("127.0.0.1", "::1", "fe80::1%eth0") or "unix:/path"; nothing here asks the DNS. Sockets are
 * close-on-exec. TCP_NODELAY is set on the listener, from which Linux's accepted sockets inherit it.
 * Thread: any. Returns 0 or a value >= 0, or -errno.
 */
#include "backend.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define LISTEN_BACKLOG 4096

union address {
    struct sockaddr any;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
    struct sockaddr_un un;
    struct sockaddr_storage room;
};

/* The address's length, or -errno. */
static int parse_address(const char *text, uint16_t port, union address *out)
{
    memset(out, 0, sizeof(*out));
    if (strncmp(text, "unix:", 5) == 0) {
        size_t n = strlen(text + 5);
        if (n == 0 || n >= sizeof(out->un.sun_path))
            return -ENAMETOOLONG;
        out->un.sun_family = AF_UNIX;
        memcpy(out->un.sun_path, text + 5, n + 1);
        return (int)sizeof(out->un);
    }
    struct addrinfo hints = {.ai_flags = AI_NUMERICHOST, .ai_socktype = SOCK_STREAM}, *found = NULL;
    if (getaddrinfo(text, NULL, &hints, &found) != 0 || !found)
        return -EINVAL;
    int len = (int)found->ai_addrlen;
    memcpy(out, found->ai_addr, found->ai_addrlen);
    freeaddrinfo(found);
    if (out->any.sa_family == AF_INET)
        out->v4.sin_port = htons(port);
    else
        out->v6.sin6_port = htons(port);
    return len;
}

static int new_socket(const union address *a, int flags)
{
    int fd = socket(a->any.sa_family, SOCK_STREAM | SOCK_CLOEXEC | flags, 0);
    if (fd < 0)
        return -errno;
    int one = 1;
    if (a->any.sa_family != AF_UNIX && setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)) < 0) {
        int e = errno;
        (void)close(fd); /* fresh and unused */
        return -e;
    }
    return fd;
}

/* A UNIX socket left behind by a dead process is taken away; one that somebody listens on is left alone. */
static int clear_stale(const union address *a, socklen_t len)
{
    struct stat st;
    if (lstat(a->un.sun_path, &st) < 0)
        return errno == ENOENT ? 0 : -errno;
    if (!S_ISSOCK(st.st_mode))
        return -EADDRINUSE;
    int fd = new_socket(a, SOCK_NONBLOCK);
    if (fd < 0)
        return fd;
    int rc = connect(fd, &a->any, len) < 0 ? -errno : 0;
    (void)close(fd); /* it was only a question */
    if (rc != -ECONNREFUSED)
        return -EADDRINUSE;
    return unlink(a->un.sun_path) < 0 && errno != ENOENT ? -errno : 0;
}

static int real_listen(struct tb_io *io, const char *address, uint16_t port)
{
    (void)io;
    union address a;
    int len = parse_address(address, port, &a), one = 1;
    if (len < 0)
        return len;
    if (a.any.sa_family == AF_UNIX) {
        int rc = clear_stale(&a, (socklen_t)len);
        if (rc < 0)
            return rc;
    }
    int fd = new_socket(&a, 0);
    if (fd < 0)
        return fd;
    if ((a.any.sa_family != AF_UNIX && setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) < 0) ||
        (a.any.sa_family == AF_INET6 && setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof(one)) < 0) ||
        bind(fd, &a.any, (socklen_t)len) < 0 || listen(fd, LISTEN_BACKLOG) < 0) {
        int e = errno;
        (void)close(fd); /* the first error is the one to tell */
        return -e;
    }
    return fd;
}

int tb_real_connect(const char *address, uint16_t port, bool *pending)
{
    union address a;
    int len = parse_address(address, port, &a);
    if (len < 0)
        return len;
    int fd = new_socket(&a, SOCK_NONBLOCK);
    if (fd < 0)
        return fd;
    *pending = false;
    if (connect(fd, &a.any, (socklen_t)len) == 0)
        return fd;
    if (errno == EINPROGRESS || errno == EINTR) {
        *pending = true;
        return fd;
    }
    int e = errno;
    (void)close(fd); /* never connected */
    return -e;
}

int tb_real_connected(int fd)
{
    int e = 0, flags;
    socklen_t len = sizeof(e);
    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &e, &len) < 0)
        return -errno;
    if (e != 0)
        return -e;
    flags = fcntl(fd, F_GETFL);
    return flags < 0 || fcntl(fd, F_SETFL, flags & ~O_NONBLOCK) < 0 ? -errno : 0;
}

bool tb_accept_ignores(int64_t r)
{
    /* accept(2): pending network errors of the new connection are to be treated like EAGAIN */
    return r == -EAGAIN || r == -EINTR || r == -ECONNABORTED || r == -EPERM || r == -EPROTO || r == -ENETDOWN ||
           r == -ENOPROTOOPT || r == -EHOSTDOWN || r == -ENONET || r == -EHOSTUNREACH || r == -ENETUNREACH;
}

static void real_shutdown(struct tb_io *io, int fd)
{
    (void)io;
    (void)shutdown(fd, SHUT_RDWR); /* ENOTCONN: the peer was first */
}

static int real_close(struct tb_io *io, int fd)
{
    (void)io;
    return close(fd) < 0 && errno != EINTR ? -errno : 0;
}

static bool real_peer(struct tb_io *io, int fd, char text[64])
{
    (void)io;
    union address a = {0};
    socklen_t len = sizeof(a);
    if (getpeername(fd, &a.any, &len) < 0) {
        (void)snprintf(text, 64, "unknown");
        return false;
    }
    if (a.any.sa_family == AF_UNIX) {
        (void)snprintf(text, 64, "unix");
        return true;
    }
    if (a.any.sa_family == AF_INET) {
        (void)inet_ntop(AF_INET, &a.v4.sin_addr, text, 64);
        return ntohl(a.v4.sin_addr.s_addr) >> 24 == 127;
    }
    const struct in6_addr *v6 = &a.v6.sin6_addr;
    (void)inet_ntop(AF_INET6, v6, text, 64);
    return IN6_IS_ADDR_LOOPBACK(v6) || (IN6_IS_ADDR_V4MAPPED(v6) && v6->s6_addr[12] == 127);
}

static uint16_t real_local_port(struct tb_io *io, int fd)
{
    (void)io;
    union address a = {0};
    socklen_t len = sizeof(a);
    if (getsockname(fd, &a.any, &len) < 0)
        return 0;
    return a.any.sa_family == AF_INET ? ntohs(a.v4.sin_port) : a.any.sa_family == AF_INET6 ? ntohs(a.v6.sin6_port) : 0;
}

const struct tb_socket_calls tb_real_sockets = {real_listen, real_shutdown, real_close, real_peer, real_local_port};
