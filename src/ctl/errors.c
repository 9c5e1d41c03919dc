/* errors.c - the texts and codes of the control store's errors (ctl_errors.def). */
#include "ctl.h"

static const struct {
    uint32_t grpc;
    const char *text;
} errors[CTL_ERROR_COUNT] = {
#define X(name, grpc, text) [CTL_##name] = {grpc, text},
#include "ctl_errors.def"
#undef X
};

const char *ctl_error_text(enum ctl_error e)
{
    MUST((unsigned)e < CTL_ERROR_COUNT);
    return errors[e].text;
}

uint32_t ctl_error_grpc(enum ctl_error e)
{
    MUST((unsigned)e < CTL_ERROR_COUNT);
    return errors[e].grpc;
}
