# The binary and nothing else: no shell, nothing to write to. Root certificates are in the binary.
#   make build && docker build -t sluice .
FROM scratch
COPY sluice /sluice
USER 65532:65532
EXPOSE 8082
ENTRYPOINT ["/sluice"]
CMD ["serve"]
