module crownest

go 1.24
