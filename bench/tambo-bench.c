/*
 * tambo-bench.c: loads any IMAP, SMTP or LMTP server, checks its answers and reports. The program's entry; the parts
 * are listed in bench.h.
 *
 * Must never count a wrong or missing answer as work done: such a run exits 1.
 */
#include <stdio.h>
#include <stdlib.h>
#include <sysexits.h>

#include "bench/bench.h"

int main(int argc, char **argv)
{
    static struct bench bench; /* a result's histogram is too large for a stack */
    int code = bench_options_parse(&bench.options, argc, argv);
    if (code >= 0)
        return code;
    enum tb_rc rc = bench_run(&bench);
    if (rc != TB_OK) {
        fprintf(stderr, "tambo-bench: %s\n", bench.err.text);
        code = EX_UNAVAILABLE;
    } else {
        if (bench.options.json == NULL || strcmp(bench.options.json, "-") != 0)
            bench_report_table(&bench);
        code = bench.total.refused > 0 || bench.total.wrong > 0 || bench.total.operations == 0 ? EXIT_FAILURE
                                                                                               : EXIT_SUCCESS;
    }
    bench_corpus_free(&bench.corpus);
    bench_options_free(&bench.options);
    return code;
}
