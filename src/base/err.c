/* err.c - the texts of enum err, and the translation of errno values into it.
 *
 * enum err is the only result vocabulary of the house; errno stays where the system call was made.
 */
#include "base.h"

#include <errno.h>

static const char *const err_texts[ERR_COUNT] = {
#define X(name, text) [ERR_##name] = text,
#include "err.def"
#undef X
};

const char *err_text(enum err e)
{
    return (unsigned)e < ERR_COUNT ? err_texts[e] : "unknown error";
}

enum err err_from_errno(int errno_value)
{
    switch (errno_value) {
    case 0: return ERR_OK;
    case ENOMEM: case ENOBUFS: return ERR_NOMEM;
    case EAGAIN: case EINTR: case EINPROGRESS: case EALREADY: return ERR_AGAIN;
    case EPIPE: case ENOTCONN: case ESHUTDOWN: return ERR_CLOSED;
    case ECONNRESET: case ECONNABORTED: return ERR_RESET;
    case ECONNREFUSED: return ERR_REFUSED;
    case ENETUNREACH: case EHOSTUNREACH: case ENETDOWN: case EHOSTDOWN: case EADDRNOTAVAIL: return ERR_UNREACH;
    case ETIMEDOUT: case ETIME: return ERR_TIMEOUT;
    case EMFILE: case ENFILE: case EMSGSIZE: case E2BIG: case ENAMETOOLONG: case EFBIG: case EMLINK: return ERR_LIMIT;
    case EINVAL: case EDOM: case ERANGE: case EBADF: case EFAULT: case ENOTDIR: case EISDIR: case EILSEQ: return ERR_INVALID;
    case ENOENT: case ESRCH: case ENODEV: case ENXIO: case ECHILD: return ERR_NOTFOUND;
    case EEXIST: case EISCONN: case ENOTEMPTY: return ERR_EXISTS;
    case EADDRINUSE: case EBUSY: case ETXTBSY: return ERR_INUSE;
    case EPERM: case EACCES: case EROFS: return ERR_PERM;
    case ENOSPC: case EDQUOT: return ERR_NOSPACE;
    case ENOSYS: case EOPNOTSUPP: case EAFNOSUPPORT: case EPROTONOSUPPORT: case ENOTTY: case ENOPROTOOPT: return ERR_UNSUPPORTED;
    default: return ERR_IO;
    }
}
